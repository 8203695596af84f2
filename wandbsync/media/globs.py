"""Which files are meant: globs over whole paths, as shells and .gitignore have them.

    *.png            at any depth: without a slash a pattern is for the last part of a path
    /*.png           only at the top
    media/**/*.png   `**` is any number of folders, `*` and `?` stay inside one part, [a-z] is one character
    media/           everything below

Names that start with a dot are names like others. Case counts; the default patterns spell it out: *.[pP][nN][gG].
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from ..errors import UsageError
from ..model import FileRecord

SUFFIXES = ("png", "jpg", "jpeg", "gif", "webp", "svg", "bmp", "tif", "tiff")
IMAGES = tuple("*." + "".join(f"[{char}{char.upper()}]" for char in suffix) for suffix in SUFFIXES)


def choose(files: Sequence[FileRecord], patterns: Sequence[str] = ()) -> list[FileRecord]:
    """The files that match one of the patterns, in their order; without patterns the IMAGES.

    A name that is listed twice, as when pages shift, counts once, as it was listed last. Raises UsageError for an
    empty pattern.
    """
    known = {file.name: file for file in files}
    patterns = patterns or IMAGES
    if not all(patterns):
        raise UsageError("an empty pattern matches no file", hint="leave --pattern out for all images")
    return [file for name, file in known.items() if any(matches(name, pattern) for pattern in patterns)]


def matches(name: str, pattern: str) -> bool:
    """Whether a path with forward slashes is meant by a pattern."""
    if pattern.startswith("./"):
        pattern = pattern[1:]
    if pattern.endswith("/"):
        pattern += "**"
    if "/" not in pattern and pattern != "**":
        return fnmatchcase(name.rpartition("/")[2], pattern)
    wanted = pattern.removeprefix("/").split("/")
    if wanted[-1] == "**":
        wanted.append("*")  # what is below a folder, not the folder
    return _match(name.removeprefix("/").split("/"), wanted)


def _match(parts: list[str], pattern: list[str]) -> bool:
    """Part by part; `here` has how many parts of the pattern may be used up so far."""
    here = _past_folders({0}, pattern)
    for part in parts:
        found = set()
        for at in here:
            if at < len(pattern):
                if pattern[at] == "**":
                    found.add(at)
                elif fnmatchcase(part, pattern[at]):
                    found.add(at + 1)
        here = _past_folders(found, pattern)
    return len(pattern) in here


def _past_folders(here: set[int], pattern: list[str]) -> set[int]:
    """`**` may also stand for no folder at all."""
    for at in sorted(here):
        while at < len(pattern) and pattern[at] == "**":
            at += 1
            here.add(at)
    return here
