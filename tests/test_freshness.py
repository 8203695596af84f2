"""When a reading command looks at the source first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_runs import history, ref, small

from wandbsync.cache import Cache
from wandbsync.config import Config
from wandbsync.errors import CacheBusy
from wandbsync.freshness import Wanted, refresh, stale_folders
from wandbsync.sync import SyncReport, sync_local


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """Synced from tmp_path/runs at second 1000."""
    small(tmp_path / "runs", "r1")
    with Cache(tmp_path / "cache") as one:
        sync_local(one, [tmp_path / "runs"], now=lambda: 1000.0)
        yield one


@pytest.mark.parametrize(
    ("wanted", "now", "asks"),
    [
        (Wanted(), 1299.0, False),
        (Wanted(), 1301.0, True),
        (Wanted(max_age=10), 1009.0, False),
        (Wanted(max_age=10), 1011.0, True),
        (Wanted(max_age=0), 1001.0, True),
        (Wanted(refresh=True), 1000.0, True),
        (Wanted(offline=True), 9e9, False),
    ],
)
def test_the_source_is_asked_when_the_answer_would_be_too_old(
    cache: Cache, wanted: Wanted, now: float, asks: bool
) -> None:
    config = Config(cache.folder)
    runs = cache.folder.parent / "runs"
    assert stale_folders(cache, config, wanted, now=now) == ([runs] if asks else [])


def test_folders_of_the_config_are_asked_though_never_synced(cache: Cache, tmp_path: Path) -> None:
    config = Config(cache.folder, local_folders=(tmp_path / "more", tmp_path / "runs"))
    assert stale_folders(cache, config, Wanted(), now=1001.0) == [tmp_path / "more"]
    with Cache(tmp_path / "none") as empty:
        assert stale_folders(empty, config, Wanted(), now=1001.0) == [tmp_path / "more", tmp_path / "runs"]


def test_what_is_new_is_there_and_what_is_bad_is_said(cache: Cache, tmp_path: Path) -> None:
    small(tmp_path / "runs", "r2")
    small(tmp_path / "runs", "r3").write_bytes(b"something else")
    heard: list[str] = []
    refresh(cache, Config(cache.folder, local_folders=(tmp_path / "gone",)), Wanted(refresh=True), say=heard.append)
    assert len(history(cache, ref("r2"))) == 15
    assert len(heard) == 2 and "is not there" in heard[0] and "is not a W&B log" in heard[1]


def test_a_cache_that_cannot_be_written_still_answers(cache: Cache) -> None:
    def busy(cache: Cache, folders: list[Path]) -> SyncReport:
        raise CacheBusy("another process keeps it locked")

    heard: list[str] = []
    refresh(cache, Config(cache.folder), Wanted(refresh=True), say=heard.append, sync=busy)
    assert len(heard) == 1 and heard[0].startswith("answering from the cache as it is: another process")
    assert len(history(cache, ref("r1"))) == 15
