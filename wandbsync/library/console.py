"""`output.log`, made from the console lines where the file itself is not to be had."""

from __future__ import annotations

from pathlib import Path

from .. import query
from ..cache import Cache
from ..errors import NothingCached
from ..model import CONSOLE, FileRecord, RunRef

NAME = "output.log"


def write_console(cache: Cache, ref: RunRef, folder: Path) -> FileRecord | None:
    """What a run printed as a file in a folder; None if no line of it is here."""
    try:
        table = query.history(cache, ref, stream=CONSOLE)
    except NothingCached:
        return None
    if not table.num_rows:
        return None
    lines = table.sort_by("step").column("value_json").to_pylist()
    path = folder / NAME
    path.write_text("".join(f"{line or ''}\n" for line in lines), encoding="utf-8", errors="replace", newline="\n")
    return FileRecord(NAME, path.stat().st_size, None, "text/plain", local_path=str(path))
