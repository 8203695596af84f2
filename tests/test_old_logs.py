"""Logs of eight SDK versions, 0.10 to 0.31, against what their training scripts logged."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.model import RunRef, logged
from wandbsync.sync import sync_local

LOGS = sorted(Path(__file__).with_name("logs").glob("*.wandb"))


def flattened(row: dict[str, Any]) -> dict[str, Any]:
    """A row as its script logged it, the way the cache shows it."""
    return {key: value for key, value in row.items() if key not in ("_step", "_timestamp", "_runtime")}


def same(ours: Any, theirs: Any) -> bool:
    """Equal to the sign of a zero; a float without fraction may come back as an int, as the SDK logs it."""
    if isinstance(theirs, float) and isinstance(ours, (int, float)):
        return (
            math.isnan(ours)
            if math.isnan(theirs)
            else (ours, math.copysign(1, ours)) == (theirs, math.copysign(1, theirs))
        )
    if isinstance(theirs, dict):  # media: the SDK adds paths and digests
        return isinstance(ours, dict) and "_type" in ours
    return isinstance(ours, bool) == isinstance(theirs, bool) and bool(ours == theirs)


@pytest.fixture(scope="module", params=LOGS, ids=lambda path: path.stem)
def synced(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cache, dict[str, Any]]]:
    path: Path = request.param
    expected = json.loads(path.with_suffix(".json").read_text())
    folder = tmp_path_factory.mktemp("old")
    run_dir = folder / "wandb" / f"offline-run-20240101_000000-{expected['run_id']}"
    run_dir.mkdir(parents=True)
    (run_dir / f"run-{expected['run_id']}.wandb").write_bytes(path.read_bytes())
    with Cache(folder / "cache") as cache:
        report = sync_local(cache, [folder])
        assert report.problems == []
        yield cache, expected


def ref(expected: dict[str, Any]) -> RunRef:
    return RunRef("local", expected["project"], expected["run_id"])


def test_every_value_comes_back(synced: tuple[Cache, dict[str, Any]]) -> None:
    cache, expected = synced
    table = query.history(cache, ref(expected)).to_pylist()
    ours = {(row["step"], row["key"]): logged(row["kind"], row["value"], row["value_json"]) for row in table}
    assert len(ours) == len(table)
    theirs = {(step, key): value for step, row in expected["rows"] for key, value in flattened(row).items()}
    # Python SDKs up to 0.13 turn an empty string into an empty list before they log it.
    old = expected["sdk"].startswith(("0.10", "0.12", "0.13"))
    wrong = {
        at: (value, ours.get(at, "MISSING"))
        for at, value in theirs.items()
        if not (at in ours and same(ours[at], value)) and not (old and value == "" and ours.get(at) == [])
    }
    assert wrong == {}
    extra = {key for _, key in ours.keys() - theirs.keys()}
    assert extra <= {"_timestamp", "_runtime", "empty_dict"}  # flattened, an empty dict leaves nothing to expect


def test_the_run_is_described(synced: tuple[Cache, dict[str, Any]]) -> None:
    cache, expected = synced
    run = query.get_run(cache, ref(expected))
    assert run["config"] == expected["config"]
    assert run["state"] == "finished" and run["exit_code"] == expected["exit_code"] == 0
    assert run["name"] == expected["display_name"]
    assert set(run["tags"]) == set(expected["tags"])
    assert (run["notes"], run["group"], run["job_type"]) == tuple(expected[k] for k in ("notes", "group", "job_type"))
    assert run["rows"] == len(expected["rows"])
    assert run["complete"]


def test_the_summary_is_what_the_sdk_said(synced: tuple[Cache, dict[str, Any]]) -> None:
    cache, expected = synced
    ours = query.get_run(cache, ref(expected))["summary_metrics"]
    theirs = json.loads(json.dumps(expected["summary"]))
    asked_for_best = {key for key, how in expected["defined"] if how.get("summary") == "best"}
    wrong = {}
    for key, value in theirs.items():
        if key in ("_wandb", "_timestamp", "_runtime", "_step"):
            continue
        mine = ours.get(key, "MISSING")
        if key in asked_for_best and not isinstance(value, dict):
            # wandb-core up to 0.27 forgets what define_metric(summary="best") asked for and shows the last value.
            assert mine == {"best": max(row[key] for _, row in expected["rows"] if key in row)}
            continue
        if isinstance(value, dict) and isinstance(mine, dict):
            if not all(agrees(mine.get(inner, "MISSING"), one) for inner, one in value.items()):
                wrong[key] = (value, mine)
        elif not agrees(mine, value):
            wrong[key] = (value, mine)
    assert wrong == {}


def agrees(mine: Any, value: Any) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return mine == {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    if isinstance(value, float) and isinstance(mine, (int, float)):
        return math.isclose(mine, value, rel_tol=1e-12)
    return bool(mine == value)
