"""Publishers that die, and many of them at once: one lake, every value once."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rows import number

from wandbsync.cache import Cache
from wandbsync.model import FileRecord, RunRef

pytest.importorskip("deltalake")
pl = pytest.importorskip("polars")

from test_lake import A, B, assert_same, bring, in_cache, in_lake, line, planned, put, scan  # noqa: E402

from wandbsync.lake import address, there  # noqa: E402
from wandbsync.lake import publish as publishing  # noqa: E402
from wandbsync.lake.delta import Lake, Overtaken  # noqa: E402

SCRIPT = Path(__file__).with_name("publishing.py")
C, D, E = (RunRef("me", "demo", name) for name in "cde")


def process(*words: object, **env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, words)], env={**os.environ, **env}, stderr=subprocess.PIPE
    )


def ended(one: subprocess.Popen[bytes], *codes: int) -> int:
    """The exit code of a process, which must be one of these."""
    said = one.communicate(timeout=200)[1]
    assert one.returncode in (codes or (0,)), said.decode()
    return one.returncode


@pytest.mark.slow
def test_a_publisher_killed_at_any_step_leaves_nothing_to_be_doubled(cache: Cache, tmp_path: Path) -> None:
    """Killed before and after each write and each block of rows; then also the one who comes after, half as far."""
    lake = tmp_path / "lake"
    put(cache, A, line(0, 20))
    put(cache, B, line(0, 20), files=[FileRecord("x", 1)])
    put(cache, C, line(0, 20))
    bring(cache, str(lake))
    put(cache, A, line(20, 10))
    cache.cut(B, 9)
    put(cache, B, line(10, 2), files=[FileRecord("y", 1)])
    put(cache, D, [*line(0, 5), number("acc", 1, 1.0)], files=[FileRecord("z", 1)])
    put(cache, D, [number("system.cpu", 0, 1.0)], "system")
    cache.forget(C)
    cache.con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ended(process("die", tmp_path / "cache", lake, tmp_path / "dead"))
    deaths = sorted((tmp_path / "dead").iterdir(), key=lambda one: int(one.name))
    assert len(deaths) > 20
    for one in deaths:
        n = int(one.name)
        with Cache(one / "cache") as left:
            if n % 3 == 1:
                put(left, A, line(30, 3))  # the cache moves on before anybody publishes again
                put(left, E, line(0, 4))
            if n % 3 == 2:
                ended(process("publish", one / "cache", one / "lake", "m", DIES_AT=str(n // 2 + 1)), -9, 0)
            bring(left, str(one / "lake"))
            here = [A, B, D, *([E] if n % 3 == 1 else [])]
            assert_same(left, str(one / "lake"), *here)
            total = sum(len(in_cache(left, ref)) for ref in here) + 20  # those of C, which is gone
            assert scan(str(one / "lake"), "history").collect().height == total, n
            assert in_lake(str(one / "lake"), D, "system") == in_cache(left, D, "system")
            files = scan(str(one / "lake"), "files").collect()
            assert sorted(zip(files["run_id"], files["name"], strict=True)) == [("b", "y"), ("d", "z")]
            keys = scan(str(one / "lake"), "metrics").collect()
            assert sorted(zip(keys["run_id"], keys["key"], strict=True)) == sorted(
                [*((ref.run_id, "loss") for ref in [*here, C]), ("d", "acc"), ("d", "system.cpu")]
            )
            assert planned(bring(left, str(one / "lake"), full=True)) == []
        shutil.rmtree(one)


def test_killed_at_random_while_the_cache_grows(cache: Cache, url: str) -> None:
    refs = [RunRef("me", f"p{i % 2}", f"r{i}") for i in range(6)]
    killed = 0
    for k in range(5):
        for ref in refs:
            put(cache, ref, line(k * 10, 10))
        one = process("publish", cache.folder, url, "m")
        time.sleep(random.uniform(0.4, 2.0))
        one.kill()
        killed += ended(one, 0, -9) == -9
    bring(cache, url)
    assert scan(url, "history").collect().height == 6 * 5 * 10
    for ref in refs:
        assert in_lake(url, ref) == in_cache(cache, ref)


def test_four_publishers_at_once(tmp_path: Path, url: str) -> None:
    """Each with projects of its own and one that all of them mirror, each publishing again and again as it grows."""
    machines = "abcd"
    shared = "https://wandb.example me/shared"
    refs = {name: [RunRef("me", f"of-{name}", f"r{i}") for i in range(3)] for name in machines}
    seen: list[RunRef] = [RunRef("me", "shared", f"s{i}") for i in range(3)]

    def caches() -> Iterator[tuple[str, Cache]]:
        for name in machines:
            with Cache(tmp_path / name) as cache:
                yield name, cache

    rows = {ref: line(0, 30) for ref in seen}
    for _, cache in caches():
        cache.synced("api", shared, 1.0)
    for k in range(3):
        for name, cache in caches():
            for ref in refs[name]:
                put(cache, ref, line(k * 10, 10))
            for ref in seen:
                put(cache, ref, rows[ref][k * 10 : k * 10 + 10])
        for one in [process("publish", tmp_path / name, url, name, 2) for name in machines]:
            ended(one)
    for name, cache in caches():
        for ref in refs[name]:
            assert in_lake(url, ref) == in_cache(cache, ref)
        for ref in seen:
            assert in_lake(url, ref) == in_cache(cache, ref), "each mirror has the same, the lake has it once"
    assert scan(url, "history").collect().height == (4 * 3 + 3) * 30
    projects = scan(url, "projects").collect().to_dicts()
    owners = {(row["server"], row["project"]): row["owner_name"] for row in projects}
    assert len(owners) == len(projects) == 5
    assert owners["wandb.example", "shared"] in machines
    assert [owners[f"local@{name}", f"of-{name}"] for name in machines] == list(machines)


@pytest.fixture
def mirrors(tmp_path: Path) -> Iterator[tuple[Cache, Cache]]:
    """Two caches that mirror the same project."""
    with Cache(tmp_path / "one") as one, Cache(tmp_path / "two") as two:
        for cache in (one, two):
            cache.synced("api", "https://wandb.example me/demo", 1.0)
            put(cache, A, [number("loss", step, step / 3) for step in range(20)])
        yield one, two


def test_the_owner_publishes_and_the_other_mirror_leaves_it_alone(mirrors: tuple[Cache, Cache], tmp_path: Path) -> None:
    one, two = mirrors
    lake = str(tmp_path / "lake")
    bring(one, lake, machine="one")
    put(two, A, line(20, 5))
    report = bring(two, lake, machine="two")
    assert (report.planned, report.runs) == ([], 0)
    assert report.left == ["me/demo is published by one, heard of 0m ago"]
    assert in_lake(lake, A) == in_cache(one, A)


def test_an_owner_that_is_forgotten_is_succeeded(mirrors: tuple[Cache, Cache], tmp_path: Path) -> None:
    one, two = mirrors
    lake = str(tmp_path / "lake")
    began = time.time()
    bring(one, lake, machine="one")
    put(two, A, line(20, 5))
    assert bring(two, lake, machine="two", now=lambda: began + there.FORGOTTEN - 60).left
    assert planned(bring(two, lake, machine="two", now=lambda: began + there.FORGOTTEN + 60)) == [
        "replace me/demo/a: 25 values (another cache published it)"
    ]
    assert in_lake(lake, A) == in_cache(two, A)
    put(one, A, line(20, 9))  # the old owner is back
    assert bring(one, lake, machine="one", now=lambda: began + there.FORGOTTEN + 120).left
    assert in_lake(lake, A) == in_cache(two, A)


def test_an_owner_that_publishes_is_heard_of(mirrors: tuple[Cache, Cache], tmp_path: Path) -> None:
    one, two = mirrors
    lake = str(tmp_path / "lake")
    began = time.time()
    for hours in range(0, 200, 20):  # nothing changes, but it goes on looking
        bring(one, lake, machine="one", now=lambda hours=hours: began + hours * 3600.0)
    assert bring(two, lake, machine="two", now=lambda: began + 201 * 3600.0).left


@pytest.mark.parametrize("commit", range(1, 5))
def test_an_owner_that_slept_while_it_was_succeeded_does_no_harm(
    mirrors: tuple[Cache, Cache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit: int
) -> None:
    """It falls asleep before each of its commits in turn, and another takes over and publishes other rows meanwhile."""
    one, two = mirrors
    lake = str(tmp_path / "lake")
    bring(one, lake, machine="one")
    put(one, A, line(20, 7))
    put(one, B, line(0, 3))
    put(two, A, line(20, 5))
    plain, commits = Lake.commit, 0

    def sleepy(self: Lake, *args: Any, **more: Any) -> None:
        nonlocal commits
        commits += 1
        if commits == commit:
            with monkeypatch.context() as awake:
                awake.setattr(Lake, "commit", plain)
                bring(two, lake, machine="two", take_over=True)
        plain(self, *args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "commit", sleepy)
        report = publishing.publish(one, address.parse(lake), machine="one")
    if commits < commit:
        pytest.skip("it has fewer commits")
    assert report.left in (
        ["me/demo was taken over by another cache"],
        ["me/demo is published by two, heard of 0m ago"],
    )
    bring(two, lake, machine="two")
    assert in_lake(lake, A) == in_cache(two, A)
    assert planned(bring(two, lake, machine="two", full=True)) == []
    assert scan(lake, "history").filter(pl.col("run_id") == "a").collect().height == 25


def test_of_two_commits_upon_the_same_state_one_is_refused(tmp_path: Path, cache: Cache) -> None:
    """The compare-and-swap that all of this stands on, also when both looked before either wrote."""
    lake = str(tmp_path / "lake")
    put(cache, A, line(0, 3))
    bring(cache, lake)
    one, two = Lake(address.parse(lake)), Lake(address.parse(lake))
    base = one.version("history", "x")
    rows = one.dataset("history").to_table()
    looked = two.table("history")
    one.commit("history", "x", 7, base, one.append("history", lambda: rows))
    assert looked is not None
    from deltalake.exceptions import CommitFailedError

    with pytest.raises(CommitFailedError):
        from deltalake import CommitProperties, Transaction

        two.append("history", lambda: rows)(looked, CommitProperties(app_transactions=[Transaction("x", 8)]))
    with pytest.raises(Overtaken):
        two.commit("history", "x", 8, base, two.append("history", lambda: rows))
    two.commit("history", "x", 7, base, two.append("history", lambda: rows))  # the same once more: it has landed
    assert scan(lake, "history").collect().height == 6


def test_what_a_dead_publisher_wrote_of_a_run_that_is_forgotten_goes(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = str(tmp_path / "lake")
    put(cache, A, line(0, 5))
    bring(cache, lake)
    put(cache, B, line(0, 5), files=[FileRecord("x", 1)])
    plain = Lake.commit

    def dies(self: Lake, name: str, *args: Any, **more: Any) -> None:
        if name == "runs":
            raise KeyboardInterrupt
        plain(self, name, *args, **more)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Lake, "commit", dies)
        bring(cache, lake)
    assert len(in_lake(lake, B)) == 5
    cache.forget(B)
    put(cache, C, line(0, 5))
    bring(cache, lake)
    assert (in_lake(lake, B), scan(lake, "files").collect().height) == ([], 0)
    assert scan(lake, "history").collect().height == 10


def test_publishers_need_not_delete_and_readers_need_not_write(
    cache: Cache, tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the documentation says that their credentials must be good for."""
    from wandbsync.lake.read import Reader

    for name, value in bucket.env.items():
        monkeypatch.setenv(name, value)
    lake = f"s3://lab/{tmp_path.name}"
    try:
        bucket.denied.add("DELETE")
        for k in range(12):  # with checkpoints of the log among them
            put(cache, A, line(k * 5, 5), generation=cache.new_generation() if k == 6 else None)
            bring(cache, lake)
        bucket.denied |= {"PUT", "POST"}
        assert in_lake(lake, A) == in_cache(cache, A)
        with Reader(address.parse(lake)) as reader:
            assert reader.runs("me/demo", "a") == [A]
            assert reader.sql("SELECT count(*) FROM history").fetchall() == [(len(in_cache(cache, A)),)]
    finally:
        bucket.denied.clear()
