"""Bytes of files: their size and MD5, copies that are what they were copied from, and a store where MD5 is the name."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from .. import files
from ..folder.metadata import locked
from ..folder.scratch import Scratch, scratch

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """What identifies the bytes of a file."""

    size: int
    md5: bytes

    @property
    def md5_text(self) -> str:
        """The MD5 as W&B writes it."""
        return base64.b64encode(self.md5).decode()


def read_md5(text: str | None) -> bytes | None:
    """The digest in W&B's words (base64, or hex as some write it); None if there is none to go by."""
    text = (text or "").strip()
    try:
        digest = bytes.fromhex(text) if len(text) == 32 else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    return digest if len(digest) == 16 else None


def of_file(path: Path) -> Content | None:
    """The content of a regular file; None if there is none (a link is none: it may lead anywhere)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        return _content(iter(lambda: file.read(_CHUNK), b""))


def copy(source: Path, to: Path, *, private: bool = False) -> Content:
    """Copy a regular file to a path that is not there yet, durably; what the copy holds. OSError if that cannot be.

    A link that another user put in the way, to what is not theirs, is not followed.
    """
    if files.strange_link(source) is not None:
        raise OSError(None, "another user's link to what is not theirs")
    handle = os.open(source, os.O_RDONLY | os.O_NONBLOCK)  # opening a FIFO would wait for a writer
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(None, "not a regular file")
        with open(to, "xb", opener=files.private_opener if private else None) as out:

            def chunks() -> Iterator[bytes]:
                while chunk := file.read(_CHUNK):
                    out.write(chunk)
                    yield chunk

            found = _content(chunks())
            out.flush()
            os.fsync(out.fileno())
    return found


def place(folder: Path, md5: bytes) -> Path:
    """Where a Store in a folder keeps a file."""
    return folder / md5.hex()[:2] / md5.hex()


class Store:
    """Files kept below a folder by their MD5: ab/ab12...; it is made with the first file. Safe to share by threads."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._lock = threading.Lock()
        self._scratch: Scratch | None = None

    def path(self, md5: bytes) -> Path:
        return place(self._folder, md5)

    def take(self, md5: bytes, size: int, to: Path) -> Content | None:
        """Copy a file out; None if it is not here. A damaged one is removed."""
        kept = self.path(md5)
        try:
            if not stat.S_ISREG(kept.lstat().st_mode):
                return None
        except OSError:
            return None
        content = copy(kept, to)
        with contextlib.suppress(OSError):
            os.utime(kept)  # what was not used for longest goes first when room is wanted
        if content == Content(size, md5):
            return content
        to.unlink()
        kept.unlink(missing_ok=True)
        return None

    def put(self, path: Path, content: Content) -> None:
        """Copy a file in. Raises OSError; then it is not here."""
        kept = self.path(content.md5)
        if kept.is_file() and kept.stat().st_size == content.size:
            return
        part = self.new()
        try:
            if copy(path, part, private=True) == content:
                files.private_folder(kept.parent)
                part.replace(kept)
        finally:
            part.unlink(missing_ok=True)

    def new(self) -> Path:
        """The path of a file that is not there yet, on the same disk."""
        with self._lock:
            if self._scratch is None:
                files.private_folder(self._folder)
                with locked(self._folder):
                    self._scratch = self._stack.enter_context(scratch(self._folder))
            return self._scratch.new()


def _content(chunks: Iterator[bytes]) -> Content:
    digest, size = hashlib.md5(usedforsecurity=False), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return Content(size, digest.digest())
