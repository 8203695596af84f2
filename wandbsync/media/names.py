"""What each file is called in the folder: one part of a path, whatever it is called on the server. Pure.

`media/images/loss_10_ab12.png` becomes loss_10_ab12.png, as the predecessor has it. Where several files want one name,
whoever has it already keeps it, else the one in the fewest folders gets it (else the first in the alphabet), and the
others are called by their folders and a hash: val_pred-1f0c8a77d2.png. So a name given once stays, and nothing is
overwritten, not even where "Loss.png" and "loss.png" are the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

from ..folder.metadata import NAME
from ..folder.names import LONGEST, NamedRun, folded, safe_part, short_hash
from ..model import FileRecord

REPLACED = ".replaced"  # a file that was in the way is kept under its name and this
_HASH = 11  # bytes of "-1f0c8a77d2"
_SUFFIX = 16  # bytes; what is longer is no suffix
_NOWHERE_ALLOWED = re.compile(r'[<>:"|?*]')  # not on Windows and its disks; `C:x` would be on another one
_TAKEN = re.compile(  # by Windows for devices, and by us
    rf"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)|{re.escape(NAME)}(\.|$)",
    re.IGNORECASE,
)
_REPLACED = re.compile(rf"{re.escape(REPLACED)}(-\d+)?$", re.IGNORECASE)


def owner(run: NamedRun, name: str) -> str:
    """A file of a run by its whole path, as `taken` names the files of a folder."""
    return f"{run}/{name}"


def flat_names(
    files: Iterable[FileRecord], run: NamedRun, taken: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """The name on the server of each file -> its name in the folder; `taken`: name in the folder -> its `owner`.

    The names are at most 200 bytes long, distinct when case is folded, and legal everywhere. They depend on the files'
    names and on `taken` only, not on the order of the files.
    """
    owners = {folded(flat): who for flat, who in taken.items()}
    had = {who: flat for flat, who in taken.items() if flat == _flat(flat)}
    names = dict.fromkeys(file.name for file in files)
    flat_of: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name.count("/"), name)):
        me = owner(run, name)
        if me in had:
            flat_of[name] = had[me]
            continue
        flat = _flat(name.rpartition("/")[2] or name)
        tries = 0
        while owners.get(folded(flat), me) != me:
            tries += 1
            flat = _told_apart(name, me, tries)
        owners[folded(flat)] = me
        flat_of[name] = flat
    return {name: flat_of[name] for name in names}


def _told_apart(name: str, me: str, tries: int) -> str:
    parts = [part for part in re.split(r"[/\\]", name) if part.strip(". ")]
    stem, suffix = _split(_flat("_".join(parts), longest=LONGEST - _HASH))
    return f"{stem}-{short_hash(me, *['again'] * (tries - 1))}{suffix}"


def _flat(text: str, *, longest: int = LONGEST) -> str:
    """One legal part of a path; what is too long is cut before its suffix."""
    stem, suffix = _split(safe_part(_NOWHERE_ALLOWED.sub("_", text), longest=10**9))
    flat = safe_part(stem, longest=longest - 2 - len(suffix.encode())) + suffix
    bare = flat.rstrip(". ")
    flat = bare + "_" * (len(flat) - len(bare))
    before = "_" if _TAKEN.match(flat) else ""
    after = "_" if _REPLACED.search(flat) else ""
    return before + flat + after


def _split(part: str) -> tuple[str, str]:
    suffix = PurePosixPath(part).suffix
    if len(suffix.encode()) > _SUFFIX or not suffix.strip(". "):
        suffix = ""
    return part[: len(part) - len(suffix)], suffix
