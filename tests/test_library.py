"""`import wandbsync` as notebooks and scripts use it; the examples of its documentation are run as they stand."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import logwriter as lw
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from local_runs import end, header, put
from shell import Shell
from wandb.proto import wandb_internal_pb2 as pb
from wandb_server import Server

import wandbsync

RUNS = {
    "eager": (0.1, [1.0, 0.75, 0.5, 0.25], "20240101_000000", 1.7e9),
    "steady": (0.01, [1.0, 0.5, 0.25, 0.125], "20240102_000000", 1.70001e9),
}


def jobs(top: Path) -> Path:
    """local/demo: `steady` and the older `eager`, four rows each."""
    for run_id, (lr, losses, stamp, at) in RUNS.items():
        config = pb.ConfigRecord(update=[pb.ConfigItem(key="lr", value_json=str(lr))])
        rows = [
            lw.record("core", 3 + i, history=lw.history("core", lw.row(i, loss=loss, epoch=i // 2), i))
            for i, loss in enumerate(losses)
        ]
        put(top, run_id, [*header(run_id, at=at, config=config), *rows, end()], stamp=stamp)
    return top


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[wandbsync.Mirror]:
    """Those two runs in a cache of their own, which the environment names; the working directory is empty."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDBSYNC_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("WANDBSYNC_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with wandbsync.open() as one:
        one.sync(local=jobs(tmp_path / "jobs"))
        yield one


# -- the package


def test_importing_it_costs_next_to_nothing() -> None:
    code = "import sys, wandbsync; dir(wandbsync); print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    assert not loaded & {"wandb", "duckdb", "pyarrow", "matplotlib", "numpy", "pandas", "sqlite3", "click", "requests"}


def test_everything_promised_is_there_and_documented() -> None:
    assert list(wandbsync.__all__) == sorted(wandbsync.__all__)
    for name in wandbsync.__all__:
        assert getattr(wandbsync, name) is not None
    for name, method in inspect.getmembers(wandbsync.Mirror, inspect.isfunction):
        if not name.startswith("_"):
            assert (method.__doc__ or "").strip(), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        wandbsync.nothing  # noqa: B018


ASKED = ["open", "Mirror.projects", "Mirror.runs", "Mirror.run", "Mirror.metrics", "Mirror.history", "Mirror.sql",
         "Mirror.plot", "Mirror.sync"]  # fmt: skip


def test_the_examples_work_as_written(mirror: wandbsync.Mirror) -> None:
    module = importlib.import_module("wandbsync.library.mirror")
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = {test.name: test for test in finder.find(module, "mirror", globs={})}
    for name in ASKED:
        assert examples[f"mirror.{name}"].examples, f"{name} has no example"
    for name, test in examples.items():
        said: list[str] = []
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
        assert not said, (name, "".join(said))


# -- answers


def test_what_the_commands_print_is_what_the_library_gives(mirror: wandbsync.Mirror, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.cache = mirror.cache_dir
    extra = {"config", "metadata"}
    listed = shell.json("list-runs", "demo", "--offline")
    assert [{k: v for k, v in run.items() if k not in extra} for run in mirror.runs("demo")] == listed
    assert mirror.metrics("local/demo/eager") == shell.json("list-metrics", "demo", "eager", "--offline")
    assert mirror.projects() == shell.json("list-projects", "--offline")


def test_runs_can_be_named_in_every_way(mirror: wandbsync.Mirror) -> None:
    run = mirror.run("demo/eager")
    wanted = mirror.history("local/demo/eager", ["loss"])
    for named in (run, [run], mirror.runs("demo", {"name": "eager"}), ["local/demo/eager", run]):
        assert mirror.history(named, ["loss"]).equals(wanted)
    assert set(mirror.history("local/demo").column("run_id").to_pylist()) == {"eager", "steady"}
    with pytest.raises(wandbsync.NotFound) as error:
        mirror.run("demo/eagre")
    assert "eager" in error.value.hint and error.value.exit_code == 2
    with pytest.raises(wandbsync.UsageError, match="is a project"):
        mirror.run("demo")
    with pytest.raises(wandbsync.UsageError, match="is not a run"):
        mirror.history(7)  # type: ignore[arg-type]
    with pytest.raises(wandbsync.UsageError, match="'id'"):
        mirror.history({"entity": "local", "project": "demo"})
    with pytest.raises(wandbsync.NotFound, match="no metric los"):
        mirror.history("local/demo", ["los"])
    with pytest.raises(wandbsync.NotFound, match="no metric los"):
        mirror.history("local/demo", ["los"], wide=False)
    with pytest.raises(wandbsync.NotFound, match="no metric epoc"):
        mirror.history("local/demo", x="epoc")
    with pytest.raises(wandbsync.UsageError, match="no stream"):
        mirror.history("local/demo", stream="sytem")


def test_long_rows_are_every_value(mirror: wandbsync.Mirror) -> None:
    table = mirror.history("local/demo", ["loss", "epoch"], wide=False)
    assert table.column_names == ["run_id", "key", "step", "value", "kind", "value_json"]
    rows = [(row["run_id"], row["key"], row["step"], row["value"]) for row in table.to_pylist()]
    assert rows == [
        (run_id, key, step, value)
        for run_id in ("steady", "eager")
        for key in ("loss", "epoch")
        for step, value in enumerate(RUNS[run_id][1] if key == "loss" else [0, 0, 1, 1])
    ]


def test_filters_that_cannot_be_are_errors(mirror: wandbsync.Mirror) -> None:
    with pytest.raises(wandbsync.UsageError, match="cannot be asked for by stat"):
        mirror.runs("demo", {"stat": "finished"})
    with pytest.raises(wandbsync.UsageError, match=r"no operator \$gtt"):
        mirror.runs("demo", {"config.lr": {"$gtt": 1}})
    with pytest.raises(wandbsync.UsageError, match="not a regular expression"):
        mirror.runs("demo", {"name": {"$regex": "("}})
    with pytest.raises(wandbsync.UsageError, match="not a time"):
        mirror.runs("demo", {"createdAt": {"$gt": "yesterday"}})
    with pytest.raises(wandbsync.UsageError, match="max_age"):
        wandbsync.open(max_age="soon")


def test_what_is_shown_is_short_and_what_is_there_is_whole(mirror: wandbsync.Mirror) -> None:
    runs = mirror.runs("demo")
    assert repr(runs).splitlines()[0].split() == [
        "id", "name", "state", "created_at", "rows", "complete", "summary_metrics",
    ]  # fmt: skip
    assert runs._repr_html_().startswith("<table>") and "eager" in runs._repr_html_()
    many = wandbsync.library.Rows([{"a": "<b>"}] * 30)
    assert repr(many).endswith("... and 10 more") and "&lt;b&gt;" in many._repr_html_() and len(many) == 30
    assert json.loads(json.dumps(mirror.run("demo/eager")))["id"] == "eager"
    assert "offline" in repr(wandbsync.open(offline=True)) and repr(wandbsync.library.Rows()) == "[]"


def test_threads_share_it(mirror: wandbsync.Mirror) -> None:
    wanted = mirror.history("local/demo")
    failures: list[Any] = []

    def ask() -> None:
        try:
            for _ in range(5):
                assert mirror.history("local/demo").equals(wanted)
                assert len(mirror.runs("demo")) == 2
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(mirror._caches) == 1  # those of the threads ended with them


def test_it_can_be_asked_again_after_the_end(mirror: wandbsync.Mirror) -> None:
    mirror.close()
    assert len(mirror.runs("demo")) == 2


def test_an_empty_cache_says_what_to_do(tmp_path: Path, mirror: wandbsync.Mirror) -> None:
    with pytest.raises(wandbsync.NothingCached, match="nothing is cached") as error:
        wandbsync.open(tmp_path / "none", offline=True).projects()
    assert "sync" in error.value.hint and not (tmp_path / "none").exists()


def test_sql_and_plot(mirror: wandbsync.Mirror) -> None:
    with pytest.raises(wandbsync.UsageError, match="only queries"):
        mirror.sql("DROP TABLE runs")
    assert mirror.sql("SELECT 1 AS a").schema == pa.schema([("a", pa.int32())])
    figure = mirror.plot("local/demo", "loss", smooth=2)
    assert sum(line.get_gid() is not None for line in figure.axes[0].lines) >= 2
    with pytest.raises(wandbsync.UsageError, match="smoth"):
        mirror.plot("local/demo", "loss", smoth=2)
    with pytest.raises(wandbsync.NotFound, match="no metric acc"):
        mirror.plot("local/demo", "acc")


# -- freshness


def test_a_server_is_asked_for_what_is_needed_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDBSYNC_CACHE_DIR", raising=False)
    with Server() as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        run = server.add_run("me", "demo", "a", {"loss": [1.0, 0.5]}, state="running")
        mirror = wandbsync.open(tmp_path / "cache", max_age=60)
        assert [one["id"] for one in mirror.runs("me/demo")] == ["a"]
        assert mirror.history("me/demo/a", ["loss"]).column("loss").to_pylist() == [1.0, 0.5]
        server.reset_counts()
        server.grow(run, {"loss": [0.25]})
        mirror.runs("me/demo")
        assert mirror.history("me/demo/a", ["loss"]).num_rows == 2 and not server.counts
        (report,) = mirror.sync("me/demo")
        assert (report.rows, mirror.history("me/demo/a").num_rows) == (1, 3)
        eager = wandbsync.open(tmp_path / "cache", max_age=0)
        server.grow(run, {"loss": [0.125]})
        assert eager.history("me/demo/a").num_rows == 4
    offline = wandbsync.open(tmp_path / "cache", offline=True)
    assert offline.history("me/demo/a").num_rows == 4
    with pytest.raises(wandbsync.UsageError, match="offline"):
        offline.sync("me/demo")
    assert eager.history("me/demo/a").num_rows == 4  # the server is gone: as the cache has it


# -- export


def test_export_is_the_history_as_a_file(mirror: wandbsync.Mirror, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.cache = mirror.cache_dir
    done = shell("export", "local/demo/eager", "--metrics", "loss,epoch", "--wide", "-o", "wide.parquet", "--offline")
    assert "4 rows in wide.parquet" in done.stderr and done.stdout == ""
    assert pq.read_table(tmp_path / "wide.parquet").equals(mirror.history("local/demo/eager", ["loss", "epoch"]))
    shell("export", "demo", "-o", "long.parquet", "--offline")
    assert pq.read_table(tmp_path / "long.parquet").equals(mirror.history("local/demo", wide=False))
    lines = shell("export", "local/demo/steady", "--metrics", "loss", "--wide", "--offline").stdout.splitlines()
    assert lines == ["run_id,_step,loss", "steady,0,1.0", "steady,1,0.5", "steady,2,0.25", "steady,3,0.125"]
    assert "epoch" in shell.error("export", "local/demo/eager", "--metrics", "epoc", "--offline", code=2)
    assert "-o" in shell.error("export", "demo", "--format", "parquet", "--offline", code=2)
    assert "eager" in shell.error("export", "local/demo/eagr", "--offline", code=2)
