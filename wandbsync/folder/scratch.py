"""Files that are being made: in a hidden folder beside where they will be, so that a rename makes them appear whole.

Each process has a folder of its own and holds a kernel lock on it: one that nobody holds was left by a process that was
killed, and whoever comes next removes it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..files import BESIDE
from .metadata import try_lock

PREFIX = ".wandbsync-"
OLD = 24 * 3600.0  # seconds; how old is left behind, where there are no locks to ask
_STALE = 600.0  # seconds; the same for what is written in one go


class Scratch:
    """Names for unfinished files; `new` is safe to call from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)

    def new(self) -> Path:
        """The path of a file that is not there yet, on the same disk as the folder it is for."""
        return self.folder / f"{next(self._numbers)}.part"


@contextmanager
def scratch(folder: Path) -> Iterator[Scratch]:
    """A hidden folder in `folder`, gone at the end with all that is left in it. Enter it under `metadata.locked`."""
    sweep(folder)
    mine = folder / f"{PREFIX}{secrets.token_hex(6)}"
    mine.mkdir(mode=0o700)
    handle = os.open(mine, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            try_lock(handle)
        yield Scratch(mine)
    finally:
        shutil.rmtree(mine, ignore_errors=True)
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left in a folder; under `metadata.locked`."""
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False):
                _remove_if_left(Path(entry.path))
            elif BESIDE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    found = entry.stat(follow_symlinks=False)
                    if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _STALE:
                        Path(entry.path).unlink()


def _remove_if_left(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        if os.fstat(handle).st_uid != os.geteuid():
            return  # in a folder where several people write, it is somebody else's
        try:
            left = try_lock(handle)
        except OSError:
            left = time.time() - os.fstat(handle).st_mtime > OLD
        if left:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)
