"""What others ask of the daemon: to stop, to read its config again."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

from ..cache.locks import holder
from ..errors import UsageError, WandbsyncError
from ..status import Snapshot, lock_of, read

PATIENCE = 15.0  # seconds for it to do what it was asked for


def running(folder: Path) -> int | None:
    """The process id of the daemon of a cache; None if there is none. Raises UsageError if it is on another machine."""
    note = holder(lock_of(folder))
    if note is None:
        return None
    pid, _, host = note.partition(" on ")
    if host and host != socket.gethostname():
        raise UsageError(f"the daemon of {folder} runs on {host}", hint="call this there")
    if not pid.isdigit():
        raise WandbsyncError(f"the lock {lock_of(folder)} does not say who holds it", hint="`fuser` on it does")
    return int(pid)


def stop(folder: Path) -> int | None:
    """Stop the daemon of a cache, and wait until it is gone; its process id, None if there was none.

    Raises WandbsyncError if it does not go.
    """
    pid = _signalled(folder, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while pid is not None and holder(lock_of(folder)) is not None:
        if time.monotonic() > deadline:
            raise WandbsyncError(f"the daemon {pid} does not stop", hint=f"`kill -9 {pid}` loses nothing")
        time.sleep(0.05)
    return pid


def reload(folder: Path) -> Snapshot:
    """Have the daemon of a cache read its config again; how it is then, with a `config_problem` if it was refused.

    Raises UsageError if there is none, WandbsyncError if it does not answer.
    """
    asked = time.time()
    pid = _signalled(folder, signal.SIGHUP)
    if pid is None:
        raise UsageError(f"no daemon keeps {folder}", hint="`wandbsync daemon run` starts one")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = read(folder)
        if found is not None and found.pid == pid and (found.config_read_at or 0.0) >= asked:
            return found
        time.sleep(0.05)
    raise WandbsyncError(f"the daemon {pid} does not answer", hint="`wandbsync status` tells more")


def _signalled(folder: Path, number: int) -> int | None:
    pid = running(folder)
    if pid is None:
        return None
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return None
    except PermissionError as error:
        raise UsageError(f"the daemon {pid} is another user's", hint="ask its owner") from error
    return pid
