"""Files and folders that we make: whole or not at all for whoever looks, and readable by whom they should be.

A file is written beside its place under a hidden name that nobody else chooses, flushed if it must outlive a power cut,
and renamed. What is kept of somebody's runs is `private`: for its owner alone, whatever the umask; what people ask for
by name (pictures, exports, downloads) is made as their umask says.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import WandbsyncError

BESIDE = re.compile(r"\.[0-9a-f]{32}\.tmp")  # what a process that was killed may leave
PRIVATE, COMMON = 0o600, 0o666  # of files, before the umask
PRIVATE_FOLDER = 0o700


@contextmanager
def replacing(path: Path, *, private: bool = False, durable: bool = False, room: Path | None = None) -> Iterator[Path]:
    """An empty new file, put in the place of `path` when the block ends well; else nothing is left of it.

    `room` is a folder on the same disk to write it in, if not beside `path`. Raises OSError.
    """
    beside = (room or path.parent) / f".{secrets.token_hex(16)}.tmp"
    os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE if private else COMMON))
    try:
        yield beside
        if durable:
            sync(beside)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write(path: Path, content: bytes, *, private: bool = False, durable: bool = False) -> None:
    """Make or replace a file. Raises OSError."""
    with replacing(path, private=private, durable=durable) as beside:
        beside.write_bytes(content)


def private_opener(path: str, flags: int) -> int:
    """For `open(..., opener=...)`: a file that is made is its owner's alone."""
    return os.open(path, flags, PRIVATE)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner alone. Raises OSError."""
    if not folder.is_dir():
        private_folder(folder.parent)
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def tighten(folder: Path, ours: Collection[str]) -> None:
    """Take a folder from everybody else, if it is this user's and has nothing in it but `ours` (names, or beginnings).

    Where something else lies beside them the folder has other uses; what is private in it is so for itself.
    """
    with contextlib.suppress(OSError):
        found = folder.stat()
        if found.st_uid == os.geteuid() and found.st_mode & 0o077:  # noqa: SIM102
            if all(name.startswith(tuple(ours)) or BESIDE.fullmatch(name) for name in os.listdir(folder)):  # noqa: PTH208
                folder.chmod(PRIVATE_FOLDER)


def output_folder(folder: Path) -> None:
    """Make a folder that people asked for. Raises WandbsyncError where somebody else's link would lead us."""
    refuse_strange_links(folder)
    folder.mkdir(parents=True, exist_ok=True)


def refuse_strange_links(path: Path) -> None:
    """Raises WandbsyncError."""
    if (link := strange_link(path)) is not None:
        raise WandbsyncError(
            f"{link} is another user's link to what is not theirs",
            hint="name the folder it leads to, if that is what you mean",
        )


def strange_link(path: Path) -> Path | None:
    """The first link on the way to `path` that another user put there, to something that is not their own.

    In a folder where several people write, such a link makes us read or write in their stead what they could not. Links
    of ours and of root are followed, and those of others to what belongs to them.
    """
    whole = path.absolute()
    for part in (*reversed(whole.parents), whole):
        try:
            link = part.lstat()
        except OSError:
            return None  # not there, and so nothing below it
        if stat.S_ISLNK(link.st_mode) and link.st_uid not in (0, os.geteuid()):
            try:
                theirs = part.stat().st_uid == link.st_uid
            except OSError:
                theirs = False
            if not theirs:
                return part
    return None
