"""A run as the server describes it -> Fingerprint and RunRecord."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from ...model import FileRecord, Fingerprint, ProjectRecord, RunRecord, RunRef, SweepRecord
from ...model.run import EDITED

SUMMARIES = {"1": "min", "2": "max", "3": "mean", "4": "best", "5": "last", "6": "none", "7": "copy", "8": "first"}


def unix(time: Any) -> float | None:
    """The server's time as unix seconds; a text without a zone is UTC. None for what is no time."""
    if isinstance(time, (int, float)):
        return float(time)
    found = _TIME.fullmatch(time.strip()) if isinstance(time, str) else None
    if found is None:
        return None
    seconds, fraction, zone = found.groups()
    zone = "+00:00" if zone in (None, "Z", "z") else f"{zone[:3]}:{zone[-2:]}" if len(zone) > 3 else f"{zone}:00"
    try:
        return datetime.fromisoformat(f"{seconds}.{(fraction or '')[:6]:0<6}{zone}").timestamp()
    except (ValueError, OverflowError):
        return None


def number(count: Any) -> int | None:
    """A count of the server, which may come as a text; None if it does not say, or nothing that can be counted."""
    try:
        found = None if count is None else int(count)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found is not None and 0 <= found < 1 << 63 else None


def fingerprint(node: Mapping[str, Any]) -> Fingerprint:
    """What tells whether a run has changed."""
    edited = _encode([node.get(str(one.wandb)) for one in EDITED])
    heartbeat = node.get("heartbeatAt")
    return Fingerprint(
        str(node.get("state") or ""),
        str(node.get("createdAt") or ""),
        None if heartbeat is None else str(heartbeat),
        number(node.get("historyLineCount")) or 0,
        number(node.get("eventsLineCount")),
        number(node.get("logLineCount")),
        hashlib.blake2b(edited.encode(), digest_size=8).hexdigest(),
    )


def record(node: Mapping[str, Any], ref: RunRef, app_url: str, *, incomplete: str | None) -> RunRecord:
    """A run node with its config and summary. Times are unix seconds."""
    config = _json(node.get("config"))
    internal = _json(_value(config.pop("_wandb", {})))
    summary = _json(node.get("summaryMetrics"))
    own = summary.pop("_wandb", None)
    runtime = own.get("runtime") if isinstance(own, dict) else None
    runtime = summary.get("_runtime") if runtime is None else runtime
    branch = _branch_point(internal, ref)
    metadata = environment(internal)
    if isinstance(own, dict):
        metadata["_wandb"] = own  # of its summary: the drop-in Api gives it back
    if definitions := defined(_list(internal.get("m"))):
        metadata["define_metric"] = definitions
    user = _json(node.get("user"))
    return RunRecord(
        state=_text(node.get("state")) or "finished",
        source="api",
        display_name=_text(node.get("displayName")),
        created_at=unix(node.get("createdAt")),
        heartbeat_at=unix(node.get("heartbeatAt")),
        config={key: _value(value) for key, value in config.items()},
        summary=summary if "summaryMetrics" in node else None,  # refused: what the rows say
        tags=tuple(map(str, node.get("tags") or ())),
        notes=_text(node.get("notes")),
        group=_text(node.get("group")) or None,
        job_type=_text(node.get("jobType")) or None,
        sweep_id=_text(node.get("sweepName")),
        host=_text(node.get("host")) or _text(metadata.get("host")),
        username=_text(user.get("username")),
        user_name=_text(user.get("name")),
        updated_at=unix(node.get("updatedAt")),
        runtime=float(runtime) if isinstance(runtime, (int, float)) else None,
        sdk_version=_text(internal.get("cli_version")),
        url="/".join([app_url, quote(ref.entity), quote(ref.project), "runs", quote(ref.run_id)]),
        forked_from=f"{branch[0]}@{branch[1]}" if branch else None,
        metadata=metadata,
        incomplete=incomplete,
    )


def fork_step(node: Mapping[str, Any], ref: RunRef) -> int | None:
    """The last step that a fork has from its parent, None if a run is no fork. The node has to have its config."""
    branch = _branch_point(_json(_value(_json(node.get("config")).get("_wandb"))), ref)
    return branch[1] if branch else None


def _branch_point(internal: Mapping[str, Any], ref: RunRef) -> tuple[str, int] | None:
    """The run and step that a fork was made from; a run of its own was rewound there."""
    branch = _json(internal.get("branch_point"))
    if branch.get("run_id") in (None, ref.run_id):
        return None
    return str(branch["run_id"]), number(branch.get("step")) or 0


def project(node: Mapping[str, Any], entity: str, name: str, app_url: str) -> ProjectRecord:
    """A project node."""
    return ProjectRecord(
        entity,
        name,
        _text(node.get("description")),
        unix(node.get("createdAt")),
        unix(node.get("updatedAt")),
        number(node.get("totalRuns")),
        "/".join([app_url, quote(entity), quote(name)]),
    )


def sweep(node: Mapping[str, Any], entity: str, project: str) -> SweepRecord:
    """A sweep node. A config that is no YAML, or no mapping, is kept as its text."""
    import yaml

    text = node.get("config") or ""
    try:
        config = yaml.safe_load(text) if isinstance(text, str) else text
        config = json.loads(json.dumps(config, default=str))  # a date, say, is a text in JSON
    except (yaml.YAMLError, TypeError, ValueError):
        config = None
    if not isinstance(config, dict):
        config = {"text": str(text)} if text else {}
    metric, best = _json(config.get("metric")), node.get("bestLoss")
    return SweepRecord(
        entity,
        project,
        str(node["name"]),
        _text(node.get("displayName")) or _text(config.get("name")),
        _text(node.get("state")),
        _text(node.get("method")) or _text(config.get("method")),
        _text(node.get("description")),
        _text(metric.get("name")),
        _text(metric.get("goal")) or ("minimize" if metric else None),
        float(best) if isinstance(best, (int, float)) else None,
        number(node.get("runCountExpected")),
        unix(node.get("createdAt")),
        unix(node.get("updatedAt")),
        config,
    )


def _text(value: Any) -> str | None:
    """A word of the server; a number, say, is none that anybody chose, but is kept as it is spelt."""
    return value if value is None or isinstance(value, str) else str(value)


def environment(internal: Mapping[str, Any]) -> dict[str, Any]:
    """Where the run was logged (program, machine, git ...), as its last writer told; names as in a local log."""
    writers = [one for one in _json(internal.get("e")).values() if isinstance(one, dict)]
    if not writers:
        return {"python": internal["python_version"]} if internal.get("python_version") else {}
    return plain_environment(max(writers, key=lambda one: str(one.get("startedAt") or "")))


def plain_environment(told: Mapping[str, Any]) -> dict[str, Any]:
    """Where a run was logged, as its config or wandb-metadata.json tells it, by the names of a local log."""
    plain = {name: value for name, value in told.items() if not isinstance(value, dict) or name == "git"}
    return {_snake(name): value for name, value in plain.items() if name not in ("startedAt", "writerId")}


def _snake(name: str) -> str:
    return re.sub("(?<=[a-z])([A-Z])", lambda match: f"_{match[1].lower()}", name)


def defined(metrics: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """What define_metric was told, from the config's `_wandb.m`: a list of records keyed by protobuf field numbers."""
    known = [one for one in metrics if isinstance(one, dict)]
    names = [one.get("1") or one.get("2") for one in known]
    definitions: dict[str, dict[str, Any]] = {}
    for one, name in zip(known, names, strict=True):
        if not name:
            continue
        step = one.get("4")
        if not step and isinstance(one.get("5"), int) and 0 < one["5"] <= len(names):
            step = names[one["5"] - 1]
        asked = [SUMMARIES[str(code)] for code in _list(one.get("7")) if str(code) in SUMMARIES]
        if "best" in asked:
            asked[asked.index("best")] = "best-max" if one.get("8") == 2 else "best-min"
        definition = ({"summary": asked} if asked else {}) | ({"step_metric": step} if step else {})
        if definition or 3 in _list(one.get("6", [3])):  # else nobody defined it: it is another one's step metric
            definitions[name] = definition
    return definitions


def files(nodes: Iterable[Mapping[str, Any]]) -> dict[str, FileRecord]:
    """File nodes by name."""
    return {
        node["name"]: FileRecord(
            node["name"],
            number(node.get("sizeBytes")) or 0,
            unix(node.get("updatedAt")),
            _text(node.get("mimetype")),
            _text(node.get("md5")),
        )
        for node in nodes
    }


_encode = json.JSONEncoder(sort_keys=True).encode
_TIME = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.(\d*))?(Z|z|[+-]\d\d(?::?\d\d)?)?")


def _value(item: Any) -> Any:
    """A config item without its wrapping: {"desc": ..., "value": v} is v."""
    return item["value"] if isinstance(item, dict) and "value" in item else item


def _list(item: Any) -> list[Any]:
    return item if isinstance(item, list) else []


def _json(text: Any) -> dict[str, Any]:
    """A JSON object, which may come as a text; an empty one for anything else."""
    if isinstance(text, str):
        try:
            text = json.loads(text, strict=False)
        except ValueError:
            return {}
    return dict(text) if isinstance(text, dict) else {}
