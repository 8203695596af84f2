"""What a log says of its run besides rows: config, names, summary set by hand, how it ended.

`Facts` are gathered record by record and stored as JSON with the log's cursor; `record` folds the facts of all logs
of a run (a resumed run has several) into one RunRecord.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..model import RunRecord, SummaryRules, is_time
from .nesting import NESTING, is_deep


@dataclass(slots=True)
class Facts:
    """One log's. Times are unix seconds; everything is JSON-able."""

    display_name: str | None = None
    notes: str | None = None
    tags: list[str] | None = None
    group: str | None = None
    job_type: str | None = None
    sweep_id: str | None = None
    host: str | None = None
    started_at: float | None = None
    sdk_version: str | None = None
    forked_from: str | None = None
    rewinds_to: int | None = None  # the step of its own run that this log goes on from
    offline: bool = False
    resumed: bool = False  # it was begun with `resume`; SDKs before 0.31 do not say
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    definitions: dict[str, dict[str, Any]] = field(default_factory=dict)
    explicit: list[list[Any]] = field(default_factory=list)  # [path, [value] or [] if removed, last step before]
    ended: bool = False
    exit_code: int | None = None
    runtime: float | None = None
    preempting: bool = False

    @classmethod
    def load(cls, state: Mapping[str, Any]) -> Facts:
        return cls(**{f.name: state[f.name] for f in fields(cls) if f.name in state})

    def dump(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def says_resumed(self) -> bool:
        """Whether its SDK writes down that a run was resumed, as those from 0.31 on do."""
        version = re.match(r"(\d+)\.(\d+)", self.sdk_version or "")
        return version is not None and (int(version[1]), int(version[2])) >= (0, 31)

    def learn(self, name: str, message: Any, last_step: int | None) -> None:
        """Take in one record; `last_step` is the step of the last history row before it."""
        if name == "run":
            self._run(message)
        elif name == "config":
            _update(self.config, message)
        elif name == "summary":
            self._summary(message, last_step)
        elif name == "metric":
            self._definition(message)
        elif name == "header":
            self.sdk_version = message.version_info.producer or self.sdk_version
        elif name == "telemetry":
            self._telemetry(message)
        elif name == "environment":
            self.metadata.update(environment(message))
        elif name == "preempting":
            self.preempting = True
        elif name == "exit":
            self.ended, self.exit_code = True, message.exit_code
            self.runtime = max(float(message.runtime), self.runtime or 0.0) or None
            if message.runtime:  # the SDK then sets it in the summary, in whole seconds of the whole run
                self.explicit.append([["_runtime"], [message.runtime], last_step])

    def _telemetry(self, telemetry: Any) -> None:
        self.sdk_version = self.sdk_version or telemetry.cli_version or None
        self.offline = self.offline or telemetry.feature.offline

    def _run(self, run: Any) -> None:
        self.display_name = run.display_name or self.display_name
        self.notes = run.notes or self.notes
        self.tags = list(run.tags) or self.tags
        self.group = run.run_group or self.group
        self.job_type = run.job_type or self.job_type
        self.sweep_id = run.sweep_id or self.sweep_id
        self.host = run.host or self.host
        self._telemetry(run.telemetry)
        self.resumed = run.resume or self.resumed
        if run.HasField("start_time") and self.started_at is None:
            started = run.start_time.seconds + run.start_time.nanos / 1e9
            self.started_at = started if is_time(started) else None
        if run.HasField("branch_point"):
            if run.branch_point.run == run.run_id:
                self.rewinds_to = int(run.branch_point.value)
            else:
                self.forked_from = f"{run.branch_point.run}@{int(run.branch_point.value)}"
        if run.HasField("git"):
            self.metadata["git"] = {"remote": run.git.remote_url, "commit": run.git.commit}
        _update(self.config, run.config)
        self._summary(run.summary, None)

    def _summary(self, summary: Any, last_step: int | None) -> None:
        changed = {tuple(_path(item)): [_value(item.value_json)] for item in summary.update}
        changed |= {tuple(_path(item)): [] for item in summary.remove}
        changed.pop(("_step",), None)  # follows from the rows
        if changed:
            kept = [one for one in self.explicit if tuple(one[0]) not in changed]
            self.explicit = [*kept, *([list(path), value, last_step] for path, value in changed.items())]

    def _definition(self, metric: Any) -> None:
        name = metric.glob_name or metric.name
        if not name or metric.expanded_from_glob:
            return
        known = {} if metric._control.overwrite else self.definitions.get(name, {})
        asked = [one for one in AGGREGATES if getattr(metric.summary, one)]
        if "best" in asked:
            asked[asked.index("best")] = "best-max" if metric.goal == 2 else "best-min"
        if asked:
            known["summary"] = asked
        if metric.step_metric:
            known["step_metric"] = metric.step_metric
        self.definitions[name] = known


AGGREGATES = ("min", "max", "mean", "first", "last", "best", "copy", "none")


def _path(item: Any) -> Sequence[str]:
    path = list(item.nested_key) or [item.key]
    return path if len(path) <= NESTING else [".".join(path)]


def _value(text: str) -> Any:
    """What a JSON text says; what is no JSON, nested too deep or a number of too many digits stays the text it is."""
    if is_deep(text):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _update(config: dict[str, Any], record: Any) -> None:
    """Apply a config record. Nested keys go into nested dicts; `_wandb`, the SDK's own, is left out."""
    for item in record.update:
        *above, last = _path(item)
        if (above or [last])[0] == "_wandb":
            continue
        place = config
        for part in above:
            inner = place.get(part)
            if not isinstance(inner, dict):
                inner = place[part] = {}
            place = inner
        place[last] = _value(item.value_json)
    for item in record.remove:
        *above, last = _path(item)
        place = config
        for part in above:
            inner = place.get(part)
            place = inner if isinstance(inner, dict) else {}
        place.pop(last, None)


def environment(message: Any) -> dict[str, Any]:
    """The fields of an environment record that are set, by name."""
    result: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        if descriptor.name == "git":
            result["git"] = {inner.name: one for inner, one in value.ListFields()}
        elif isinstance(value, (str, int, float, bool)):
            result[descriptor.name] = value
        elif descriptor.type == descriptor.TYPE_STRING:
            result[descriptor.name] = list(value)
    return result


def record(logs: Sequence[Facts], *, alive: bool, heartbeat_at: float | None, incomplete: str | None) -> RunRecord:
    """One run from the facts of its logs, oldest first; the later log has the last word on what both say."""

    def last(name: str) -> Any:
        return next((value for one in reversed(logs) if (value := getattr(one, name)) is not None), None)

    final = logs[-1]
    definitions: dict[str, dict[str, Any]] = {}
    config: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    explicit: dict[tuple[str, ...], tuple[Sequence[Any], int | None]] = {}
    for one in logs:
        definitions |= one.definitions
        config |= one.config
        metadata |= one.metadata
        if one.rewinds_to is not None:  # what was set later than that is void, as the rows are
            explicit = {path: (value, at) for path, (value, at) in explicit.items() if (at or 0) <= one.rewinds_to}
        for path, value, after in one.explicit:
            explicit[tuple(path)] = (value, after)
    if definitions:
        metadata["define_metric"] = definitions
    return RunRecord(
        state=state(final, alive=alive),
        source="local",
        display_name=last("display_name"),
        created_at=min((one.started_at for one in logs if one.started_at is not None), default=None),
        heartbeat_at=heartbeat_at,
        config=config,
        rules=SummaryRules(
            explicit=explicit,
            # One without a summary counts too: it keeps a glob away from its key.
            definitions={name: tuple(one.get("summary", ())) for name, one in definitions.items()},
        ),
        tags=tuple(last("tags") or ()),
        notes=last("notes"),
        group=last("group"),
        job_type=last("job_type"),
        sweep_id=last("sweep_id"),
        host=last("host"),
        exit_code=final.exit_code,
        runtime=final.runtime,
        sdk_version=last("sdk_version"),
        forked_from=logs[0].forked_from,
        metadata=metadata,
        incomplete=incomplete,
    )


def state(facts: Facts, *, alive: bool) -> str:
    """The run's state as W&B names it, from its last log; `alive` if any of its logs is still being written."""
    if alive:
        return "preempting" if facts.preempting else "running"
    if facts.ended and facts.exit_code == 0:
        return "finished"
    if facts.preempting:  # it said so, and went without a word or with an error
        return "preempted"
    return "failed" if facts.ended else "crashed"
