"""A fork has its own rows; its parent's up to the step of the fork come where they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mirror import Mirror
from rows import number, share, text
from wandb_server import Server

import wandbsync
from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.cli import main_group
from wandbsync.errors import NothingCached
from wandbsync.library.lineage import with_parents
from wandbsync.model import RunRecord, RunRef
from wandbsync.query import wide

PARENT, FORK, LEAF, OTHER = (RunRef("me", "demo", name) for name in ("parent", "fork", "leaf", "other"))


def record(forked_from: str | None = None, **known: object) -> RunRecord:
    return RunRecord("finished", "api", display_name="nice", forked_from=forked_from, summary={"loss": 9}, **known)  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """parent: steps 0-9; fork, from step 5: 4-8 (its server gives it rows of the parent); leaf, from fork's 6."""
    cache = Cache(tmp_path / "cache")
    rows = {
        PARENT: [
            *[number("loss", step, float(step)) for step in range(10)],
            *[text("note", 3, '"early"'), text("note", 7, '"late"')],
        ],
        FORK: [number("loss", step, 100.0 + step) for step in range(4, 9)],
        LEAF: [number("loss", step, 200.0 + step) for step in range(7, 9)],
        OTHER: [number("loss", 0, 1.0)],
    }  # fmt: skip
    made = {PARENT: record(), FORK: record("parent@5"), LEAF: record("fork@6", config={"lr": 1}), OTHER: record()}
    for ref, some in rows.items():
        cache.commit([share(ref, None, some, record=made[ref])])
    cache.checked([FORK], 1e9)
    return cache


EXPECTED = {
    PARENT: [float(step) for step in range(10)],
    FORK: [0.0, 1.0, 2.0, 3.0, *[100.0 + step for step in range(4, 9)]],
    LEAF: [0.0, 1.0, 2.0, 3.0, 104.0, 105.0, 106.0, 207.0, 208.0],
    OTHER: [1.0],
}


def test_rows_statistics_and_what_is_known_of_the_run(cache: Cache) -> None:
    with with_parents(cache, list(EXPECTED), lambda parents: None) as whole:
        for ref, losses in EXPECTED.items():
            steps, values = query.series(whole, ref, "loss")
            assert steps.tolist() == list(range(len(losses))) and values.tolist() == losses
            loss = query.list_metrics(whole, ref)["loss"]
            assert (loss["count"], loss["max"], loss["last_step"]) == (len(losses), max(losses), len(losses) - 1)
        assert query.history(whole, LEAF, ["note"]).column("value_json").to_pylist() == ['"early"']
        table = next(iter(wide.batches(whole, [FORK], wide.columns(whole, [FORK], ["loss"]))))
        assert table.num_rows == 9
        for ref in (FORK, LEAF):
            changed = {"rows": len(EXPECTED[ref]), "last_step": 8}
            assert query.get_run(whole, ref) == query.get_run(cache, ref) | changed
    assert query.series(cache, FORK, "loss")[0].tolist() == [4, 5, 6, 7, 8]  # the cache is as it was


def test_in_sql(cache: Cache) -> None:
    found = "SELECT step, value FROM history_with_parent WHERE run_id = '{}' AND key = 'loss' ORDER BY step"
    for ref, losses in EXPECTED.items():
        assert query.sql(cache, found.format(ref.run_id)).fetchall() == list(enumerate(losses))
    notes = "SELECT run_id, value_json FROM history_with_parent WHERE key = 'note' ORDER BY ALL"
    assert query.sql(cache, notes).fetchall() == [
        ("fork", '"early"'), ("leaf", '"early"'), ("parent", '"early"'), ("parent", '"late"'),
    ]  # fmt: skip


def test_by_the_library(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDBSYNC_CONFIG", raising=False)
    with wandbsync.open(cache.folder, offline=True) as mirror:
        table = mirror.history(["me/demo/fork", "me/demo/other"], ["loss"], with_parent=True)
        assert table.column("loss").to_pylist() == EXPECTED[FORK] + EXPECTED[OTHER]
        assert mirror.history("me/demo/fork", ["loss"]).num_rows == 5


@pytest.mark.parametrize("exported", [0, 19])
def test_rows_of_the_parent_that_a_server_counts_and_does_not_give(tmp_path: Path, exported: int) -> None:
    """wandb/wandb#11056: they are not missing, neither now nor when the fork grows."""
    point = {"m": [], "branch_point": {"run_id": "parent", "step": 20}}
    with Server() as server:
        rows = [{"_step": step, "loss": 1.0} for step in range(21, 40)]
        run = server.add_run("me", "demo", "fork", rows, config={"_wandb": point}, exported=exported, state="running")

        def twist(payload: dict[str, Any], status: int, body: Any) -> tuple[int, Any]:
            return status, json.loads(
                json.dumps(body).replace(f'"historyLineCount": {len(rows)}', f'"historyLineCount": {21 + len(rows)}')
            )

        server.twist = twist
        mirror = Mirror(tmp_path / "cache", server)
        mirror.quietly()
        assert (mirror.run("fork")["rows"], mirror.run("fork")["complete"]) == (19, True)
        assert not mirror.quietly().planned
        server.grow(run, [{"_step": 40, "loss": 2.0}])
        rows.append({})
        assert [str(action) for action in mirror.quietly().planned] == ["fetch me/demo/fork (grown)"]
        assert (mirror.run("fork")["rows"], mirror.run("fork")["complete"]) == (20, True)
        mirror.close()


def test_a_parent_that_is_not_here_is_fetched_or_told(tmp_path: Path) -> None:
    cache, asked = Cache(tmp_path / "cache"), []
    cache.commit([share(FORK, None, [number("loss", 6, 1.0)], record=record("parent@5"))])
    with (
        pytest.raises(NothingCached, match="parent of me/demo/fork, me/demo/parent"),
        with_parents(cache, [FORK], asked.extend),
    ):
        pass
    assert asked == [PARENT]

    def fetch(parents: object) -> None:
        if cache.revision(PARENT) is None:
            cache.commit([share(PARENT, None, [number("loss", 0, 0.5)], record=record("fork@9"))])  # a circle

    with with_parents(cache, [FORK], fetch) as whole:
        assert query.series(whole, FORK, "loss")[1].tolist() == [0.5, 1.0]


def test_by_the_commands(cache: Cache, tmp_path: Path) -> None:
    def said(words: str) -> str:
        result = CliRunner().invoke(
            main_group, ["--cache-dir", str(cache.folder), *words.split()], catch_exceptions=False
        )
        assert result.exit_code == 0
        return result.stdout

    rows = said("export me/demo/fork --metrics loss --wide --format csv --with-parent --offline").splitlines()
    assert [float(row.split(",")[2]) for row in rows[1:]] == EXPECTED[FORK]
    metrics = json.loads(said("list-metrics me/demo leaf --with-parent --json --offline"))
    assert (
        metrics["loss"]["count"],
        json.loads(said("list-metrics me/demo leaf --json --offline"))["loss"]["count"],
    ) == (9, 2)
    out = tmp_path / "plots"
    said(f"generate-plots me/demo fork,other --metrics loss --with-parent --no-ema --data csv --output {out} --offline")
    (points,) = out.glob("*.csv")
    assert len(points.read_text().splitlines()) == 1 + len(EXPECTED[FORK] + EXPECTED[OTHER])
    assert "--with-parent" in next(iter(json.loads((out / "metadata.json").read_text())["plots"].values()))["command"]
