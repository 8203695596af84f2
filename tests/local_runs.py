"""Local runs for tests: small logs as the SDK lays them out, and all that a cache holds, to compare."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import logwriter as lw
from wandb.proto import wandb_internal_pb2 as pb

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.cache.verify import verify
from wandbsync.model import STREAMS, RunRef, logged
from wandbsync.sync import sync_local


def header(
    run_id: str,
    *,
    at: float = 1.7e9,
    offline: bool = True,
    resume: bool = True,
    rewinds_to: int | None = None,
    **fields: Any,
) -> list[bytes]:
    """The first two records of a log."""
    run = pb.RunRecord(run_id=run_id, **({"project": "demo"} | fields))
    run.MergeFromString(lw.varint(24 << 3) + lw.varint(resume))  # `resume`, which older protobuf classes do not have
    run.start_time.seconds = int(at)
    run.telemetry.feature.offline = offline
    if rewinds_to is not None:
        run.branch_point.run, run.branch_point.value, run.branch_point.metric = run_id, rewinds_to, "_step"
    version = pb.HeaderRecord(version_info=pb.VersionInfo(producer="0.31.0"))
    return [lw.record("core", 1, header=version), lw.record("core", 2, run=run)]


def rows(steps: Iterable[int], **values: Any) -> list[bytes]:
    """History records; x is the step."""
    return [lw.record("core", 3 + i, history=lw.history("core", lw.row(i, x=i, **values), i)) for i in steps]


def said(text: str) -> bytes:
    return lw.record("core", 9, output_raw=pb.OutputRawRecord(output_type=pb.OutputRawRecord.STDOUT, line=text))


def end(code: int = 0) -> bytes:
    return lw.record("core", 99, exit=pb.RunExitRecord(exit_code=code))


def put(
    top: Path, run_id: str, records: Iterable[bytes], *, stamp: str = "20240101_000000", offline: bool = True
) -> Path:
    """Lay a log where the SDK would have written it; returns its path."""
    folder = top / "wandb" / f"{'offline-run' if offline else 'run'}-{stamp}-{run_id}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"run-{run_id}.wandb"
    path.write_bytes(lw.log(records))
    return path


def small(top: Path, run_id: str, count: int = 5, *, stamp: str = "20240101_000000", **fields: Any) -> Path:
    """A finished run of a few rows."""
    return put(top, run_id, [*header(run_id, **fields), *rows(range(count)), end()], stamp=stamp)


def ref(run_id: str, project: str = "demo", entity: str = "local") -> RunRef:
    return RunRef(entity, project, run_id)


def history(cache: Cache, one: RunRef, stream: str = "history") -> dict[tuple[str, int], Any]:
    """(key, step) -> value; fails if any is there twice."""
    found = {}
    for row in query.history(cache, one, stream=stream).to_pylist():
        at = row["key"], row["step"]
        assert at not in found, f"{at} is there twice"
        found[at] = repr(logged(row["kind"], row["value"], row["value_json"]))  # repr: NaN equals NaN, 1 is not 1.0
    return found


def rounded(value: Any) -> Any:
    return json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.10g}"))


def contents(cache: Cache) -> dict[str, Any]:
    """All runs with all their rows, but for what says when and how they came in."""
    assert [str(finding) for finding in verify(cache) if not finding.harmless] == []
    found = {}
    for project in query.list_projects(cache, limit=None):
        for listed in query.list_runs(cache, (project["entity"], project["name"]), limit=None):
            one = RunRef(project["entity"], project["name"], listed["id"])
            run = query.get_run(cache, one)
            del run["synced_at"]
            run["summary_metrics"] = rounded(run["summary_metrics"])  # a mean depends on the order of adding up
            found[str(one)] = run | {stream: history(cache, one, stream) for stream in STREAMS}
    return dict(sorted(found.items()))


def fresh(top: Path) -> dict[str, Any]:
    """The contents of a cache that reads all below `top` at once."""
    with tempfile.TemporaryDirectory() as folder, Cache(Path(folder) / "cache") as other:
        sync_local(other, [top])
        return contents(other)
