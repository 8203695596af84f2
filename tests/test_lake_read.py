"""A lake asked on a machine that has no cache, by wandbsync and by another engine; and a lake looked after."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rows import NAN, RECORD, number, text
from shell import Shell

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.config import Config
from wandbsync.daemon.daemon import Daemon
from wandbsync.daemon.log import Log
from wandbsync.daemon.service import Service
from wandbsync.errors import NotFound, UsageError
from wandbsync.lake import address, plan
from wandbsync.model import FileRecord, Kind, RunRef

pytest.importorskip("deltalake")
pl = pytest.importorskip("polars")

from test_lake import A, B, assert_same, bring, in_cache, in_lake, line, put  # noqa: E402

from wandbsync.lake.delta import Lake  # noqa: E402
from wandbsync.lake.read import Reader  # noqa: E402
from wandbsync.lake.upkeep import look_after  # noqa: E402


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A machine without a cache."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return Shell(folder)


def fill(cache: Cache) -> list[RunRef]:
    refs = [RunRef("me", project, f"r{i}") for project in ("demo", "other") for i in range(3)]
    for i, ref in enumerate(refs):
        record = RECORD.__class__(
            "failed" if i % 2 else "finished", "local", display_name=f"Run, {i}", created_at=1.7e9 + i,
            config={"lr": 0.1 * i, "opt": {"name": "adam"}}, summary={"loss": i}, tags=("x", "y"), group="g",
        )  # fmt: skip
        rows = [*line(0, 40), *line(0, 40, "val/acc"), text("t", 1, '"x"'), ("b", 2, Kind.BOOL, 1.0, None)]
        put(cache, ref, [*rows, number("odd", 0, NAN)], record=record, files=[FileRecord("f", 1)])
        put(cache, ref, [number("system.gpu", 0, 1.0), number("system.gpu", 1, 2.0)], "system", record=record)
    return refs


def test_a_reader_knows_what_the_cache_knows(cache: Cache, url: str) -> None:
    refs = fill(cache)
    bring(cache, url)
    with Reader(address.parse(url)) as reader:
        project = reader.project("demo")
        assert project == ("me", "demo")
        assert query.list_runs(reader.cache, project) == query.list_runs(cache, project)
        found = reader.runs("demo", "Run, 0,r1")
        assert found == refs[:2]
        for ref in found:
            assert query.get_run(reader.cache, ref) == query.get_run(cache, ref)
            known = query.list_metrics(cache, ref, include_system=True)
            known.pop("_step")  # counted from the rows
            there = {key: query.list_metrics(reader.cache, ref)[key] for key in query.list_metrics(reader.cache, ref)}
            assert repr(there) == repr({key: known[key] for key in there})
            assert query.known_metrics(reader.cache, [ref]) == query.known_metrics(cache, [ref])
            for key in query.known_metrics(cache, [ref]):
                for mine, theirs in zip(reader.series(ref, key), query.series(cache, ref, key), strict=True):
                    np.testing.assert_array_equal(mine, theirs)
        with pytest.raises(NotFound, match="no run r9"):
            reader.runs("demo", "r9")
        with pytest.raises(NotFound, match="no project demmo"):
            reader.project("demmo")


def test_the_commands_answer_from_a_lake(
    cache: Cache, tmp_path: Path, bucket: Any, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what the environment has, and nothing else."""
    url = f"s3://lab/{tmp_path.name}"
    shell.env |= bucket.env
    with monkeypatch.context() as publisher:
        for name, value in bucket.env.items():
            publisher.setenv(name, value)
        fill(cache)
        bring(cache, url)
    runs = shell.json("list-runs", "demo", "--lake", url, "--state", "finished", "--limit", "1")
    assert [run["name"] for run in runs] == ["Run, 2"] and runs[0]["summary_metrics"] == {"loss": 2}
    question = "SELECT run_id, config->>'lr' AS lr, tags FROM runs WHERE project = 'demo' ORDER BY 1"
    table = shell("sql", question, "--lake", url, "--format", "csv").stdout.splitlines()
    assert table[0] == "run_id,lr,tags" and table[1].startswith("r0,0.0,")
    count = shell("sql", "SELECT count(*) AS n FROM history", "--lake", url, "--format", "json").stdout
    assert '"n": 498' in count
    shell("sql", "SELECT * FROM history", "--lake", url, "--limit", "1")  # it ends while more could be read
    drawn = shell.json("generate-plots", "me/demo", "r0,r1", "--metrics", "loss", "--lake", url, "--output", "out")
    assert drawn[0]["points"] == [40, 40] and (shell.folder / "out" / "loss.png").exists()
    assert not shell.cache.exists()
    assert "no project" in shell.error("list-runs", "nope", "--lake", url, code=2)
    assert "only queries" in shell.error("sql", "DROP TABLE history", "--lake", url, code=2)
    assert "sql --schema --lake" in shell.error("sql", "SELECT * FROM nothing", "--lake", url, code=2)
    assert "gone_at" in shell("sql", "--schema", "--lake", url).stdout


def test_nothing_else_can_be_read_through_a_lake(cache: Cache, tmp_path: Path) -> None:
    put(cache, A, line(0, 3))
    bring(cache, str(tmp_path / "lake"))
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with Reader(address.parse(str(tmp_path / "lake"))) as reader:
        for bad in (
            f"SELECT * FROM '{secret}'",
            f"COPY (SELECT 1) TO '{tmp_path}/x.csv'",
            "SET enable_external_access = true",
        ):
            with pytest.raises(UsageError):
                reader.sql(bad).fetchall()


def test_commands_and_errors(cache: Cache, tmp_path: Path, shell: Shell) -> None:
    lake = str(tmp_path / "lake")
    assert "there is no lake at" in shell.error("list-runs", "demo", "--lake", lake, code=5)
    assert "lake.url" in shell.error("publish", code=2)
    shell.env["WANDBSYNC_CACHE_DIR"] = str(cache.folder)
    put(cache, A, line(0, 3))
    assert (
        shell("publish", lake, "--dry-run").stdout == f"add me/demo/a: 3 values (new)\nwould publish 1 runs to {lake}\n"
    )
    assert not Path(lake).exists()
    shell.env["WANDBSYNC_LAKE"] = lake
    assert shell("publish").stdout.startswith(f"published 1 runs, 3 values to {lake} in ")
    assert shell("publish").stdout.startswith("up to date")
    report = shell.json("publish", "--full")
    assert (report["projects"], report["planned"], report["commits"]) == (1, [], 0)
    assert "no credentials" in shell.error("publish", "s3://key:secret@bucket/x", code=2)
    assert "168 hours" in shell.error("publish", "--vacuum", "--keep", "1h", code=2)
    assert "history: " in shell("publish", "--compact", "--vacuum").stdout
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot" in shell.error("publish", str(blocked / "lake"), code=1)


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['deltalake'] = None; from wandbsync.cli import main; main()"
    for words in (["publish", "x"], ["list-runs", "demo", "--lake", "x"], ["sql", "SELECT 1", "--lake", "x"]):
        done = subprocess.run(
            [sys.executable, "-c", code, "--cache-dir", str(tmp_path), *words], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (
            2, "error: a lake needs the package deltalake (pip install 'wandbsync[lake]')\n",
        )  # fmt: skip


# -- pruning


@pytest.fixture
def wide(cache: Cache, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A lake in a bucket: 4 projects of 12 runs, in buckets of 4, each run published in two parts."""
    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(plan, "BUCKET_RUNS", 4)
    url = f"s3://lab/{tmp_path.name}"
    for k in range(2):
        for p in range(4):
            for r in range(12):
                put(cache, RunRef("me", f"p{p}", f"r{r:02d}"), [*line(k * 5, 5), *line(k * 5, 5, "acc")])
        bring(cache, url)
    return url


def reads(bucket: Any, ask: Callable[[], Any]) -> tuple[Any, set[str]]:
    """What is answered, and the files of rows that were read for it."""
    bucket.asked.clear()
    answer = ask()
    files = {path for method, path in bucket.asked if method == "GET" and path.endswith(".parquet")}
    return answer, {path for path in files if "/history/server=" in path}


@pytest.mark.parametrize("compacted", [False, True])
def test_a_question_about_one_run_reads_few_files(wide: str, bucket: Any, cache: Cache, compacted: bool) -> None:
    """As the server of the bucket saw it, for our reader, for SQL, and for Polars."""
    ref = RunRef("me", "p2", "r07")
    if compacted:
        look_after(address.parse(wide), compact=True, vacuum=False)
    table = Lake(address.parse(wide)).table("history")
    assert table is not None
    files = len(table.file_uris())
    assert files == (12 if compacted else 24)  # 4 projects, 3 buckets, 2 publications
    one_run = 1 if compacted else 2
    with Reader(address.parse(wide)) as reader:
        reader.runs("me/p2", "r07")
        found, read = reads(bucket, lambda: reader.series(ref, "loss"))
        np.testing.assert_array_equal(found, query.series(cache, ref, "loss"))
        assert len(read) == one_run
        of_run = "SELECT count(*) FROM history WHERE project = 'p2' AND run_id = 'r07' AND key = 'acc'"
        found, read = reads(bucket, lambda: reader.sql(of_run).fetchall())
        assert found == [(10,)] and len(read) == one_run
        of_project = "SELECT count(*) FROM history WHERE entity = 'me' AND project = 'p2'"
        found, read = reads(bucket, lambda: reader.sql(of_project).fetchall())
        assert found == [(240,)] and len(read) == 3 * one_run
        late = "SELECT count(*) FROM history WHERE project = 'p2' AND step >= 5"
        found, read = reads(bucket, lambda: reader.sql(late).fetchall())
        assert found == [(120,)] and len(read) == 3
    found, read = reads(bucket, lambda: in_lake(wide, ref))
    by_run = not pl.__version__.startswith("1.")  # Polars 1 leaves out partitions only, 2 also files by their ranges
    assert found == in_cache(cache, ref) and len(read) == (one_run if by_run else 3 * one_run)


# -- looking after it


def count(url: str, table: str) -> int:
    opened = Lake(address.parse(url)).table(table)
    assert opened is not None
    return len(opened.file_uris())


def test_compaction_changes_no_row_and_vacuum_keeps_what_is_read(cache: Cache, tmp_path: Path) -> None:
    url = str(tmp_path / "lake")
    for k in range(4):
        put(cache, A, [*line(k * 10, 10), text("t", k, '"x"')])
        put(cache, B, line(k * 10, 10))
        bring(cache, url)
    assert count(url, "history") == 4
    looked = {one.table: one for one in look_after(address.parse(url), compact=True, vacuum=True)}
    assert (looked["history"].merged, looked["history"].into, looked["history"].removed) == (4, 1, 0)
    assert_same(cache, url, A, B)
    put(cache, A, line(60, 10))
    bring(cache, url)
    assert_same(cache, url, A, B)
    with pytest.raises(UsageError, match="168 hours"):
        look_after(address.parse(url), compact=False, vacuum=True, hours=1)
    would = look_after(address.parse(url), compact=False, vacuum=True, hours=0, force=True, dry_run=True)
    done = look_after(address.parse(url), compact=False, vacuum=True, hours=0, force=True)
    assert [one.removed for one in would] == [one.removed for one in done]
    assert {one.table: one.removed for one in done}["history"] >= 4
    assert_same(cache, url, A, B)
    put(cache, A, line(70, 10))
    bring(cache, url)
    assert_same(cache, url, A, B)


def test_compaction_and_publishers_do_not_hinder_each_other(cache: Cache, tmp_path: Path) -> None:
    script = Path(__file__).with_name("publishing.py")
    lake = str(tmp_path / "lake")
    refs = [RunRef("me", "demo", f"r{i}") for i in range(4)]
    for k in range(8):
        for ref in refs:
            put(cache, ref, line(k * 10, 10), generation=cache.new_generation() if k == 5 else None)
        one = subprocess.Popen([sys.executable, str(script), "publish", str(cache.folder), lake, "m"])
        while one.poll() is None:
            if (Path(lake) / "projects" / "_delta_log" / "00000000000000000000.json").exists():
                look_after(address.parse(lake), compact=True, vacuum=False)
        assert one.returncode == 0
    for ref in refs:
        assert in_lake(lake, ref) == in_cache(cache, ref)


# -- as a job


@pytest.fixture
def daemon(cache: Cache, tmp_path: Path) -> Iterator[tuple[Daemon, io.StringIO]]:
    said = io.StringIO()
    log = Log(out=said)
    config = Config(cache.folder, lake_url=str(tmp_path / "lake"), lake_every=300.0, lake_machine="m")

    class Never:
        def at(self, *_: Any) -> None: ...

        def cancel(self, *_: Any) -> None: ...

        def stop(self) -> None: ...

    made = Daemon(config, cache.folder, Service(Never(), log, clock=lambda: 1000.0), log, login=lambda: None)  # type: ignore[arg-type]
    yield made, said
    made.stop(5)


def test_the_daemon_publishes_at_its_interval(daemon: tuple[Daemon, io.StringIO], cache: Cache, tmp_path: Path) -> None:
    made, said = daemon
    made.begin()
    assert "publish to the lake" in made.service.names()
    put(cache, A, line(0, 5))
    assert made.lake.publish() == 1300.0
    assert "published" in said.getvalue() and "values=5" in said.getvalue()
    assert_same(cache, str(tmp_path / "lake"), A)
    assert made.lake.publish() == 1300.0
    assert said.getvalue().count("published") == 1


def test_the_page_about_lakes_names_what_there_is() -> None:
    from wandbsync.cli import main_group
    from wandbsync.lake import tables

    page = (Path(__file__).parent.parent / "docs" / "lake.md").read_text()
    flags = {flag for command in main_group.commands.values() for one in command.params for flag in one.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) <= flags
    assert set(re.findall(r"^ +wandbsync ([a-z-]+) |`wandbsync ([a-z-]+)", page, re.M)) <= {
        pair for name in main_group.commands for pair in ((name, ""), ("", name))
    }
    assert all(f"`{name}`" in page for name in tables.COLUMNS)
