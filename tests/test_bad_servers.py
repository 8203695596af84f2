"""One bad thing of a server: it is named and left alone for a while, in bounded time and memory; the others come."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mirror import DEMO, Mirror, connected, rows
from wandb_server import Server
from wandb_server.store import Export

from wandbsync import query
from wandbsync.errors import NotSignedIn, TimedOut, TooLarge
from wandbsync.model import RunRef
from wandbsync.sources.api import body, exports
from wandbsync.sources.api.client import Api
from wandbsync.sync.arrivals import Arrivals


def problem(report: Any) -> str:
    (one,) = report.problems
    return str(one.reason)


def records(mirror: Mirror, field: str) -> dict[str, Any]:
    """The config or summary of each run."""
    return {name: query.get_run(mirror.cache, RunRef(*DEMO, name))[field] for name in mirror.runs()}


# -- too much at once


def test_a_page_of_records_that_is_too_much_is_halved(server: Server, mirror: Mirror) -> None:
    runs = [server.add_run(*DEMO, f"r{i:02}", rows(2), config={"n": i}) for i in range(30)]
    server.root.most_records = 7
    mirror.quietly(rows=False)
    assert mirror.asked["Runs"] < 20
    assert records(mirror, "config") == {f"r{i:02}": {"n": i} for i in range(30)}
    mirror.quietly()
    mirror.assert_same(*runs)


@pytest.mark.parametrize("with_rows", [False, True])
def test_a_run_whose_summary_the_server_cannot_give(server: Server, mirror: Mirror, with_rows: bool) -> None:
    """It spoils the page of its record and every question about it: all else of it is here, and it is said."""
    runs = [server.add_run(*DEMO, f"r{i:02}", rows(2), config={"n": i}, summary={"best": i}) for i in range(30)]
    server.poison(runs[11], "summary")
    report = mirror.sync(rows=with_rows)
    assert "me/demo/r11: summary: " in problem(report) and "context deadline exceeded" in problem(report)
    assert records(mirror, "config") == {f"r{i:02}": {"n": i} for i in range(30)}
    assert {name for name, some in records(mirror, "summary_metrics").items() if some != {"best": int(name[1:])}} == {
        "r11"
    }
    if with_rows:
        mirror.assert_same(*runs)
        assert records(mirror, "summary_metrics")["r11"]["loss"] == 0.5  # what the rows say
        assert "r11" in problem(mirror.sync())  # it waits, and that is said
        assert mirror.asked == {"Runs": 1}
    runs[11].poisoned.clear()
    mirror.now += 120
    mirror.quietly()
    assert with_rows is False or records(mirror, "summary_metrics")["r11"] == {"best": 11}


def test_a_run_whose_history_the_server_cannot_load(server: Server, mirror: Mirror) -> None:
    good, bad, more = (server.add_run(*DEMO, name, rows(5), exported=3, config={"lr": 1}) for name in ("a", "b", "c"))
    server.poison(bad)
    report = mirror.sync()
    assert "run not found for history loading: me/demo/b" in problem(report)
    mirror.assert_same(good, more)
    bad_run = query.get_run(mirror.cache, RunRef(*DEMO, "b"))
    assert (bad_run["config"], bad_run["deleted_at"], bad_run["complete"]) == ({"lr": 1}, None, False)
    assert sum(mirror.asked.values()) < 20
    assert mirror.api.transport.budget.clock.ahead < 8  # type: ignore[attr-defined]  # seconds of waiting
    assert "leave me/demo/b until" in problem(mirror.sync())
    bad.poisoned.clear()
    mirror.now += 120
    mirror.quietly()
    mirror.assert_same(good, bad, more)


def test_a_page_of_rows_that_is_too_much_is_halved(server: Server, mirror: Mirror) -> None:
    def twist(payload: Any, status: int, answer: Any) -> tuple[int, Any]:
        run = (((answer.get("data") or {}).get("project") or {}).get("run") or {}) if isinstance(answer, dict) else {}
        if len(run.get("history") or ()) > 100:
            return 502, {"error": "bad gateway"}
        return status, answer

    live, sparse = server.add_run(*DEMO, "live", rows(1300)), server.add_run(*DEMO, "sparse", rows(700, apart=999))
    server.root.lacks = {"parquetHistory"}
    server.twist = twist
    mirror.quietly()
    mirror.assert_same(live, sparse)


# -- a storage that is away


@pytest.mark.parametrize("serves", [True, False])
def test_a_storage_that_cannot_be_reached(server: Server, mirror: Mirror, serves: bool) -> None:
    runs = [server.add_run(*DEMO, f"r{i}", rows(1700 if i else 5), exported=1500 if i else None) for i in range(4)]
    server.block_storage()
    server.history_serves_exported = serves
    report = mirror.sync()
    (note,) = report.notes
    storage = server.signer.base.removeprefix("http://")
    assert note.startswith(f"{storage} refuses the connection: rows come from the API instead")
    assert f"keeps its files on {storage}" in note and "HTTPS_PROXY" in note
    if serves:
        assert not report.problems
        mirror.assert_same(*runs)
        server.grow(runs[1], rows(3, 1700))
        server.export(runs[1])
        mirror.quietly()
        mirror.assert_same(*runs)
    else:  # no way to them, and that is said, with why
        assert len(report.problems) == 3 and storage in report.problems[0].reason
        mirror.assert_same(runs[0])


# -- what trickles, and what swells


def test_an_answer_that_trickles(server: Server, mirror: Mirror) -> None:
    server.add_run(*DEMO, "r", rows(3))
    mirror.api = connected(server, timeout=0.3)
    server.fail("Viewer", times=None, drip=0.02)
    with pytest.raises(TimedOut, match="sent only"):
        mirror.api.viewer()
    assert server.counts["Viewer"].requests == 2


def test_an_export_that_trickles_comes_by_pages(server: Server, mirror: Mirror) -> None:
    server.history_serves_exported = True
    one, two = server.add_run(*DEMO, "one", rows(1500), exported=1200), server.add_run(*DEMO, "two", rows(2))
    mirror.api = connected(server, timeout=0.3)
    server.fail("export", times=None, drip=0.02)
    mirror.quietly()
    mirror.assert_same(one, two)


def test_an_answer_that_swells(server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two megabytes that are two gigabytes when decompressed: it ends long before."""
    monkeypatch.setattr(body, "ANSWER", 4 << 20)
    monkeypatch.setattr(body, "SMALL", 4 << 20)
    bad, good = (server.add_run(*DEMO, name, rows(3)) for name in ("bad", "good"))
    bomb = gzip.compress(bytes(10 << 20)) * 200
    for operation in ("Run*", "HistoryPage"):
        gzipped = {"Content-Encoding": "gzip"}
        server.fail(operation, times=None, where={"run": bad.name}, status=200, body=bomb, headers=gzipped)
    report = mirror.sync()
    assert "that expand to more than" in problem(report)
    mirror.assert_same(good)
    with pytest.raises(TooLarge):
        mirror.api.run(RunRef(*DEMO, "bad"), {"record"})
    server.calm()
    server.fail("Viewer", status=200, body=b" " * (5 << 20))
    with pytest.raises(TooLarge, match="answers more than 4 MB"):
        mirror.api.viewer()


def test_a_compressed_file_that_swells(server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "SMALL", 1 << 20)
    runs = [server.add_run(*DEMO, name, rows(5), exported=5) for name in ("bad", "good")]
    bomb = gzip.compress(bytes(20 << 20))
    server.fail("export", times=1, status=200, body=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "x/y"})
    report = mirror.sync()
    assert "expand to more than" in problem(report)
    assert sum(run["complete"] for run in mirror.runs().values()) == 1
    mirror.now += 120
    mirror.quietly()
    mirror.assert_same(*runs)


def parquet(table: Any, **how: Any) -> Export:
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer, **how)
    return Export("bad.parquet", buffer.getvalue())


def test_an_export_with_far_more_rows_than_there_are(server: Server, mirror: Mirror) -> None:
    bad, good = (server.add_run(*DEMO, name, rows(30), exported=30) for name in ("bad", "good"))
    count = 5_000_000
    bad.exports = [parquet({"_step": np.zeros(count), "x": np.zeros(count)})]
    assert len(bad.exports[0].data) < 100_000
    report = mirror.sync()
    assert "has 5,000,000 rows, far more than the server counts" in problem(report)
    mirror.assert_same(good)


def test_a_small_file_of_much(server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "DENSE", 1 << 20)
    bad, good = (server.add_run(*DEMO, name, rows(30), exported=30) for name in ("bad", "good"))
    texts = ["x" * 500_000 + str(i) for i in range(30)]
    bad.exports = [parquet({"_step": np.arange(30.0), "x": texts}, compression="zstd", use_dictionary=False)]
    report = mirror.sync()
    assert "bytes that expand to" in problem(report)
    mirror.assert_same(good)


def test_a_count_below_nothing_is_no_count(server: Server, mirror: Mirror) -> None:
    server.add_run(*DEMO, "r", rows(30))

    def twist(payload: Any, status: int, body: Any) -> tuple[int, Any]:
        return status, json.loads(json.dumps(body).replace('"historyLineCount": 30', '"historyLineCount": -1'))

    server.twist = twist
    assert "does not count the rows" in problem(mirror.sync())
    assert mirror.run("r")["rows"] == 30 and not mirror.run("r")["complete"]


# -- whose fault it is


def test_a_key_that_expires_between_the_listing_and_a_run(server: Server, mirror: Mirror) -> None:
    """W&B answers HTTP 200 and null then: no run is taken for deleted."""
    runs = [server.add_run(*DEMO, f"r{i}", rows(3)) for i in range(3)]
    mirror.quietly()
    for run in runs:
        server.grow(run, rows(1, 3))

    def expire(payload: Any, status: int, answer: Any) -> tuple[int, Any]:
        server.key = "x" * 40
        return status, answer

    server.twist = expire
    with pytest.raises(NotSignedIn, match="does not accept the API key"):
        mirror.sync()
    assert [run["deleted_at"] for run in mirror.runs().values()] == [None] * 3
    server.twist = lambda payload, status, answer: (status, answer)
    mirror.api = connected(server)
    mirror.quietly()
    mirror.assert_same(*runs)


@pytest.mark.parametrize("where", [(Arrivals, "_fetched"), (Arrivals, "_record"), (Api, "run")])
def test_a_mistake_of_ours_is_not_told_as_the_servers(
    server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, where: tuple[type, str]
) -> None:
    def slip(*_: Any, **__: Any) -> None:
        raise TypeError("a slip of ours")

    server.add_run(*DEMO, "r", rows(3))
    monkeypatch.setattr(*where, slip)
    with pytest.raises(TypeError, match="a slip of ours"):
        mirror.sync()
