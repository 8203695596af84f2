"""Kernel locks: one process at a time mirrors a project, and one daemon keeps a cache.

Only work is saved by them; the commits are safe without. A lock goes with its process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import files
from ..errors import CacheBusy
from .disk import os_errors

NOTE = 200  # bytes of a note


@contextmanager
def workplace(folder: Path, what: str) -> Iterator[Path]:
    """Hold the lock on `what` in a cache folder, with a folder for what is needed only meanwhile.

    Both go with the process; if it is killed, the folder goes when the next one comes, whatever that works on.
    Raises CacheBusy if another process holds the lock.
    """
    import hashlib  # a fiftieth of a second, which reading commands need not spend

    name = hashlib.blake2b(what.encode(), digest_size=8).hexdigest()
    place = folder / "fetch" / name
    with _syncing(folder / "locks" / name, what):
        with os_errors(folder):
            shutil.rmtree(place, ignore_errors=True)
            files.private_folder(place)
            for other in place.parent.iterdir():
                if other != place:
                    with contextlib.suppress(_Held), _locked(folder / "locks" / other.name, str(os.getpid())):
                        shutil.rmtree(other, ignore_errors=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _syncing(path: Path, what: str) -> Iterator[None]:
    try:
        with _locked(path, str(os.getpid())):
            yield
    except _Held as held:
        owner = f" ({held.note})" if held.note else ""
        raise CacheBusy(f"another process{owner} is syncing {what}", hint="it will be done soon") from None


@contextmanager
def alone(path: Path, note: str) -> Iterator[int]:
    """Hold a lock for as long as this process works, with a note of who that is; the file's handle.

    Raises CacheBusy with the note of whoever holds it, if that does not let go within a second: it may be
    somebody who just looks (`holder`).
    """
    deadline = time.monotonic() + 1.0
    while True:
        try:
            with _locked(path, note) as handle:
                yield handle
                return
        except _Held as held:
            if time.monotonic() >= deadline:
                raise CacheBusy(held.note) from None
        time.sleep(0.05)


def holder(path: Path) -> str | None:
    """The note of the process that holds a lock; None if nobody does."""
    try:
        import fcntl

        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (ImportError, FileNotFoundError):
        return None
    except OSError:
        return None  # not ours to read: whoever holds it is somebody else's business
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(handle, NOTE).decode(errors="replace").strip()
    finally:
        os.close(handle)
    return None


class _Held(Exception):
    """A signal within this file: somebody else has the lock."""

    def __init__(self, note: str) -> None:
        super().__init__(note)
        self.note = note


@contextmanager
def _locked(path: Path, note: str) -> Iterator[int]:
    """Hold a lock and leave a note; raises _Held if another process has it."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield -1
        return
    with os_errors(path.parent):
        files.private_folder(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _Held(os.read(handle, NOTE).decode(errors="replace").strip()) from None
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, note.encode(), 0)
        yield handle
    finally:
        os.close(handle)
