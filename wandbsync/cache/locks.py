"""Kernel locks: one process at a time mirrors a project. Only work is saved by them; the commits are safe without."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CacheBusy
from .disk import os_errors


@contextmanager
def workplace(folder: Path, what: str) -> Iterator[Path]:
    """Hold the lock on `what` in a cache folder, with a folder for what is needed only meanwhile.

    Both go with the process; if it is killed, the folder goes when the next one comes, whatever that works on.
    Raises CacheBusy if another process holds the lock.
    """
    name = hashlib.blake2b(what.encode(), digest_size=8).hexdigest()
    place = folder / "fetch" / name
    with _locked(folder / "locks" / name, what):
        with os_errors(folder):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(mode=0o700, parents=True)
            for other in place.parent.iterdir():
                if other != place:
                    with contextlib.suppress(CacheBusy), _locked(folder / "locks" / other.name, other.name):
                        shutil.rmtree(other, ignore_errors=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    with os_errors(path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 20).decode(errors="replace").strip()
            raise CacheBusy(
                f"another process{f' ({owner})' if owner else ''} is syncing {what}", hint="it will be done soon"
            ) from None
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)
