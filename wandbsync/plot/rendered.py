"""Pictures that were drawn before, kept beside the cache: the same data with the same options is not drawn twice.

    CACHE/derived/plots/<digest>.<png|svg|pdf>      the picture
    CACHE/derived/plots/<digest>.json               what is said of it

The digest is of everything that decides the bytes: which values (by their version in the catalog), labels, colours,
options, and the versions of what draws. Nothing here needs numpy or matplotlib, so that a picture that is there already
costs no more than starting. The folder is only a convenience: it is bounded, and may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import __version__, files

try:
    from _blake2 import blake2b  # as hashlib has it, without the time it takes to load OpenSSL
except ImportError:
    from hashlib import blake2b

RENDERER = 4  # counts up with every change to what a picture looks like
MOST = 256 << 20  # bytes of all of them; the oldest go
DOWN_TO = 3 * MOST // 4
_FONTS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts", "~/Library/Fonts")


def digest(described: Mapping[str, Any]) -> str:
    """The name under which a picture of all this is kept."""
    text = json.dumps([RENDERER, __version__, _drawn_with(), described], sort_keys=True, default=str)
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _drawn_with() -> list[Any]:
    """What else decides the bytes: matplotlib and numpy as they are installed, and which fonts there are."""
    found: list[Any] = [sys.version]
    for name in ("matplotlib", "numpy"):
        spec = find_spec(name)
        found.append(_stamp(spec.origin) if spec and spec.origin else None)
    return found + [_stamp(str(Path(folder).expanduser())) for folder in _FONTS]


def _stamp(path: str) -> list[Any] | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return [path, stat.st_mtime_ns]


def find(folder: Path, name: str, form: str) -> tuple[bytes, dict[str, Any]] | None:
    """The picture and what is said of it; None if it is not there, or not whole."""
    told_in, drawn_in = folder / f"{name}.json", folder / f"{name}.{form}"
    try:
        told = json.loads(told_in.read_bytes())
        picture = drawn_in.read_bytes()
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("digest") != _of(picture):
        return None
    with contextlib.suppress(OSError):
        os.utime(told_in)  # used: others go first
        os.utime(drawn_in)
    return picture, told


def keep(folder: Path, name: str, form: str, picture: bytes, told: Mapping[str, Any]) -> None:
    """Keep a picture if that is possible."""
    with contextlib.suppress(OSError):
        files.private_folder(folder)
        # Not made durable: what a power cut tears is found to be torn, and drawn again.
        files.write(folder / f"{name}.{form}", picture, private=True)
        files.write(folder / f"{name}.json", json.dumps({**told, "digest": _of(picture)}).encode(), private=True)


def prune(folder: Path, most: int = MOST) -> None:
    """If they have become too many, drop those that were used longest ago."""
    with contextlib.suppress(OSError):
        sizes: dict[str, int] = {}
        used: dict[str, float] = {}
        for entry in os.scandir(folder):
            name = entry.name.partition(".")[0]
            if len(name) == 32 and entry.is_file(follow_symlinks=False):
                stat = entry.stat()
                sizes[name] = sizes.get(name, 0) + stat.st_size
                used[name] = max(used.get(name, 0.0), stat.st_mtime)
        total = sum(sizes.values())
        if total <= most:
            return
        for name in sorted(used, key=lambda name: used[name]):
            if total <= most * DOWN_TO / MOST:
                return
            for path in folder.glob(f"{name}.*"):
                path.unlink(missing_ok=True)
            total -= sizes[name]


def place(path: Path, picture: bytes) -> None:
    """Put a picture where it is wanted; a file that is the same already is left alone: some look at its time."""
    try:
        if path.stat().st_size == len(picture) and path.read_bytes() == picture:
            return
    except OSError:
        pass
    files.output_folder(path.parent)
    files.write(path, picture)


def _of(picture: bytes) -> str:
    return blake2b(picture, digest_size=16).hexdigest()


__all__ = ["MOST", "digest", "find", "keep", "place", "prune"]
