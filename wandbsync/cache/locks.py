"""Kernel locks: one process at a time mirrors a project. Only work is saved by them; the commits are safe without."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CacheBusy
from .disk import os_errors


@contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock on `what` in a cache folder; it goes with the process. Raises CacheBusy if another one holds it."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        yield
        return
    with os_errors(folder):
        (folder / "locks").mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "locks" / hashlib.blake2b(what.encode(), digest_size=8).hexdigest()
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
