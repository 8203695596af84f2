"""What became of each file, and what metadata.json says of it: names are claimed before, what came is noted after."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import __version__
from .. import files as made
from ..errors import WandbsyncError
from ..folder import metadata
from ..folder.names import NamedRun
from ..model import FileRecord
from .names import flat_names, owner

DOWNLOADED = "downloaded"  # from the server
COPIED = "copied"  # from this machine: the run's own folder, or what was downloaded before
UNCHANGED = "unchanged"  # it was there, and is what the server has
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file: it is at `path`, or there is an `error`."""

    file: FileRecord  # as it was last heard of
    outcome: str  # DOWNLOADED, COPIED, UNCHANGED or FAILED
    path: Path | None
    md5: str | None = None  # of the bytes there, as W&B writes it
    bytes: int = 0  # that were fetched from the server
    note: str | None = None
    error: WandbsyncError | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file and its place in the folder."""

    file: FileRecord
    path: Path
    entry: Mapping[str, Any]  # what metadata.json says of it; {} if nothing yet
    ours: bool  # what is at `path`, if anything, was downloaded by us or by the predecessor


def claim(folder: Path, run: NamedRun, files: Sequence[FileRecord]) -> list[Wanted]:
    """Give each file its name and note that in metadata.json; under the folder's lock."""
    before = metadata.read(folder)
    entries = metadata.table(before, "files")
    taken = {
        flat: f"{entry['run']}/{entry['name']}"
        for flat, entry in entries.items()
        if isinstance(entry.get("run"), str) and isinstance(entry.get("name"), str)
    }
    # Plots have names here too; a folder of plots counts with its name.
    plots = {*metadata.table(before, "plots"), *metadata.listed(before, "plots_generated")}
    taken |= {path.split("/")[0]: "" for path in plots}
    flat_of = flat_names(files, run, taken)
    claims = {
        flat: {"run": str(run), "name": name} for name, flat in flat_of.items() if taken.get(flat) != owner(run, name)
    }
    if claims:
        metadata.change(folder, lambda before: metadata.merged(before, {"files": claims}))
    by_predecessor = set(metadata.listed(before, "files_downloaded")) - entries.keys()
    wanted = []
    for file in files:
        flat = flat_of[file.name]
        entry = {} if flat in claims else entries[flat]
        wanted.append(Wanted(file, folder / flat, entry, "size" in entry or flat in by_predecessor))
    return wanted


def note(
    folder: Path,
    run: NamedRun,
    wanted: Iterable[Wanted],
    results: Mapping[str, FileResult],
    patterns: Sequence[str],
    now: datetime,
) -> None:
    """Tell metadata.json what came, and give back the names of what did not. Same as before: it is not written."""
    done, entries, given_back = [], {}, []
    for one in wanted:
        result = results.get(one.file.name)
        if result and result.outcome != FAILED:
            done.append(one.path.name)
            entry = _entry(run, one, result, now)
            if entry != one.entry:
                entries[one.path.name] = entry
        elif "size" not in one.entry and not os.path.lexists(one.path):
            given_back.append(one.path.name)
    if not entries and not given_back:
        return
    made.sync(folder)  # the names before what vouches for them
    new: dict[str, Any] = {"files": entries}
    if entries:
        new = {
            "run_id": run.run_id,
            "run_name": run.display_name,
            "entity": run.entity,
            "project": run.project,
            "download_timestamp": now.isoformat(),
            "pattern_used": list(patterns) if len(patterns) > 1 else patterns[0] if patterns else "auto",
            "files_downloaded": done,
            "files": entries,
            "wandbsync_version": __version__,
        }

    def edit(before: dict[str, Any]) -> dict[str, Any]:
        after = metadata.merged(before, new)
        for flat in given_back:
            if "size" not in after["files"].get(flat, {}):
                after["files"].pop(flat, None)
        if not after["files"]:
            del after["files"]
        return after

    with metadata.locked(folder):
        metadata.change(folder, edit)


def _entry(run: NamedRun, one: Wanted, result: FileResult, now: datetime) -> dict[str, Any]:
    """What metadata.json says of a file that is there."""
    came = now.isoformat() if result.outcome != UNCHANGED else one.entry.get("download_timestamp")
    return {
        "run": str(run),
        "name": one.file.name,
        "size": result.file.size,
        "md5": result.md5,
        "updated_at": stamp(result.file.updated_at),
        "download_timestamp": came,
    }


def stamp(seconds: float | None) -> str | None:
    """Unix seconds as ISO 8601; None if there is no such time."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
    except (OverflowError, OSError, ValueError):
        return None
