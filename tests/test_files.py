"""Who else on the machine can read what is kept, and where another user's links lead."""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from pathlib import Path

import pytest
from keeper import kept, wait_for
from local_runs import small
from shell import Shell

from wandbsync import files
from wandbsync.cache import Cache
from wandbsync.folder.scratch import sweep
from wandbsync.media.content import copy


def open_to_others(folder: Path) -> list[str]:
    return [
        f"{stat.S_IMODE(path.lstat().st_mode):o} {path.name}"
        for path in (folder, *folder.rglob("*"))
        if path.lstat().st_mode & 0o077
    ]


def test_a_cache_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask, and if somebody made the folder for everybody before."""
    shell = Shell(tmp_path)
    small(tmp_path / "runs", "r1")
    shell.cache.mkdir()
    shell.cache.chmod(0o777)
    old = os.umask(0)
    try:
        shell("sync", "--local", "runs")
        shell("sql", "SELECT count(*) FROM history")
        shell("generate-plots", "local/demo", "r1", "--metrics", "x", "--output", "plots")
        shell("publish", "lake")
        small(tmp_path / "runs", "r2")
        with kept(shell, f'[local]\nfolders = ["{tmp_path}/runs"]\n') as keeper:
            wait_for(lambda: (shell.cache / "status.json").exists() and len(keeper.events()) > 1, keeper.text)
            assert open_to_others(shell.cache) == []
    finally:
        os.umask(old)
    assert open_to_others(shell.cache) == []
    picture = next((tmp_path / "plots").glob("*.png"))
    assert stat.S_IMODE(picture.stat().st_mode) == 0o666  # what was asked for by name is as the umask says


def test_a_folder_with_other_uses_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "notes.txt").touch()
    for _ in range(2):
        with Cache(tmp_path) as cache:
            assert cache.con
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "catalog.sqlite").stat().st_mode) == 0o600


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "loss.csv"
    files.write(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, b"new", durable=True)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_two_who_write_one_file_do_not_share_what_they_write_beside(tmp_path: Path) -> None:
    """Two `--data csv` of one picture once wrote into one temporary file."""
    path, both = tmp_path / "loss.csv", threading.Barrier(2, timeout=10)

    def one(letter: str) -> None:
        with files.replacing(path) as beside:
            both.wait()
            beside.write_text(letter * 100_000)
            both.wait()

    threads = [threading.Thread(target=one, args=[letter]) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert re.fullmatch("a{100000}|b{100000}", path.read_text()) and list(tmp_path.iterdir()) == [path]


PLACING = ("files.py", "cache/disk.py", "cache/upkeep/backup.py", "cache/upkeep/rebuild.py")


def test_only_files_puts_files_in_place() -> None:
    """But for a segment, which may turn out to be empty, and catalogs that are made in another place."""
    package = Path(files.__file__).parent
    for path in package.rglob("*.py"):
        if re.search(r"(beside|os)\.(replace|rename)\(", path.read_text()):
            assert path.relative_to(package).as_posix() in PLACING, path


# -- links of others in a folder where several people write


OTHER = 54_321  # a user that is nobody here
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link in another's name")


def others_link(link: Path, to: Path) -> Path:
    link.symlink_to(to)
    os.lchown(link, OTHER, -1)
    return link


@as_root
def test_nobody_is_led_away_by_anothers_link(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        (folder / "secret.png").write_bytes(b"x")
    for path in (theirs, theirs / "secret.png"):
        os.chown(path, OTHER, -1)
    trap = others_link(tmp_path / "wandb_plots", mine)
    shell = Shell(tmp_path)
    small(tmp_path / "runs", "r1")
    shell("sync", "--local", "runs")
    plot = ("generate-plots", "local/demo", "r1", "--metrics", "x", "--offline", "--output")
    told = shell(*plot, "wandb_plots/deep", code=1).stderr
    assert f"{trap} is another user's link" in told and [path.name for path in mine.iterdir()] == ["secret.png"]
    assert "another user's link" in shell("--cache-dir", str(trap / "cache"), "sync", "--local", "runs", code=1).stderr
    with pytest.raises(OSError, match="another user's link"):
        copy(trap / "secret.png", tmp_path / "copied.png")
    assert not (tmp_path / "copied.png").exists()
    # What leads to their own things is theirs to say; a link of mine is mine.
    copy(others_link(tmp_path / "open", theirs) / "secret.png", tmp_path / "copied.png")
    (tmp_path / "own").symlink_to(mine)
    shell(*plot, "own")
    assert any(path.suffix == ".png" and path.name != "secret.png" for path in mine.iterdir())


@as_root
def test_what_another_left_half_made_is_theirs(tmp_path: Path) -> None:
    folder, file = tmp_path / ".wandbsync-0123456789ab", tmp_path / f".{'0' * 32}.tmp"
    folder.mkdir()
    file.touch()
    os.utime(file, (0, 0))
    for path in (folder, file):
        os.chown(path, OTHER, -1)
    sweep(tmp_path)
    assert folder.exists() and file.exists()
    for path in (folder, file):
        os.chown(path, os.geteuid(), -1)
    sweep(tmp_path)
    assert not folder.exists() and not file.exists()
