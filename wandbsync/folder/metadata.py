"""metadata.json: what lies in a folder and where it is from. What was listed before stays listed.

    plots_generated, metrics_plotted, plots      drawn:       file -> metric, runs, points, smoothing
    files_downloaded, files                      downloaded:  file -> run, name on the server, size, md5, updated_at

An entry of `files` without a size is a claim: this name is given away, the file itself is still to come.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import write

NAME = "metadata.json"
DAMAGED = "metadata.json.damaged"

# New entries of these are added to those before, and the lists are counted.
_LISTS = {"plots_generated": "plot_count", "metrics_plotted": None, "files_downloaded": "file_count"}
_TABLES = ("plots", "files")
_PATIENCE = 10.0  # seconds; the lock is held for milliseconds


def read(folder: Path) -> dict[str, Any] | None:
    """What metadata.json says; {} if there is none, None if it is damaged."""
    try:
        found = json.loads((folder / NAME).read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError, IsADirectoryError):
        return None
    return found if isinstance(found, dict) else None


def table(metadata: Mapping[str, Any] | None, name: str) -> dict[str, dict[str, Any]]:
    """`plots` or `files` as far as it is well-formed: path -> entry."""
    found = (metadata or {}).get(name)
    if not isinstance(found, dict):
        return {}
    return {path: entry for path, entry in found.items() if isinstance(entry, dict)}


def listed(metadata: Mapping[str, Any] | None, name: str) -> list[str]:
    """`plots_generated` or another list, as far as it is well-formed."""
    found = (metadata or {}).get(name)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def merged(before: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new` over `before`; what the lists, `plots` and `files` held before stays in them."""
    both = {**before, **new}
    for key, count in _LISTS.items():
        if key in new:
            old = before.get(key)
            kept = [str(one) for one in old if one] if isinstance(old, list) else []
            both[key] = list(dict.fromkeys([*kept, *new[key]]))
            if count:
                both[count] = len(both[key])
    for key in _TABLES:
        if key in new:
            old = before.get(key)
            both[key] = {**old, **new[key]} if isinstance(old, dict) else dict(new[key])
    return both


def update(folder: Path, new: Mapping[str, Any]) -> Path:
    """Merge `new` into metadata.json; a damaged one is first set aside under another name."""
    with locked(folder):
        change(folder, lambda before: merged(before, new))
    return folder / NAME


def change(folder: Path, edit: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    """Replace what metadata.json says by what `edit` makes of it (nothing: no file); under `locked`."""
    before = read(folder)
    if before is None:
        before = {"damaged_metadata": set_aside(folder / NAME, folder / DAMAGED).name}
    after = edit(before)
    if after:
        write(folder / NAME, json.dumps(after, indent=2).encode() + b"\n", durable=True)
    else:
        (folder / NAME).unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone among the processes and threads that change this folder's list of files; not to be nested.

    The kernel holds the lock, on the folder itself, so nothing is left behind. Where there are no such locks (some
    network disks), or somebody sits on it, it goes without: then two at once may lose an entry, never a file.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        give_up = time.monotonic() + _PATIENCE
        with contextlib.suppress(OSError):
            while not try_lock(handle) and time.monotonic() < give_up:
                time.sleep(0.005)
        yield
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Take the lock of an open file or folder if nobody has it. OSError: there are no locks here."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def set_aside(path: Path, other: Path) -> Path:
    """Rename to `other`, or to `other`-2, -3 ... if there is one; gives the new name."""
    free, number = other, 1
    while free.exists() or free.is_symlink():
        number += 1
        free = other.with_name(f"{other.name}-{number}")
    return path.rename(free)
