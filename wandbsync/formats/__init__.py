"""Results as files and text for other programs: the formats, which of them is meant, and how each is written.

    spelling   how values are spelled in CSV and JSON      arrow   Parquet and Arrow files
    text       CSV, TSV, JSON, JSON lines                  table   aligned columns, for people
    sink       stdout, or a file put in place when whole

All but the table are streamed, so that the size of a result does not matter. A new format is a function that writes
an `Answer`, and an entry of FORMATS.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from .answer import Answer, Shown

__all__ = ["ENDINGS", "FORMATS", "chosen", "write"]


@dataclass(frozen=True, slots=True)
class Format:
    """A format of results."""

    name: str
    endings: tuple[str, ...]  # of files that are meant to be of it
    writer: str  # module.function of (answer, file, limit); imported when it is used, as every command names formats


FORMATS = {
    one.name: one
    for one in (
        Format("table", (".txt",), "table.write"),
        Format("json", (".json",), "text.write_json"),
        Format("jsonl", (".jsonl", ".ndjson"), "text.write_jsonl"),
        Format("csv", (".csv",), "text.write_csv"),
        Format("tsv", (".tsv", ".tab"), "text.write_tsv"),
        Format("parquet", (".parquet", ".pq"), "arrow.write_parquet"),
        Format("arrow", (".arrow", ".feather", ".ipc"), "arrow.write_arrow"),
    )
}
ENDINGS = {ending: one.name for one in FORMATS.values() for ending in one.endings}
SPREADSHEETS = (".xlsx", ".xls", ".ods")


def chosen(name: str | None, file: Path | None, default: str) -> str:
    """The name of the format: the one that is named, else the one that the file's ending says, else `default`.

    Raises UsageError for a file with an ending that says none.
    """
    if name is not None or file is None:
        return name or default
    ending = file.suffix.lower()
    if ending in ENDINGS:
        return ENDINGS[ending]
    if ending in SPREADSHEETS:
        raise UsageError(
            f"{ending} files, which hold a million rows at the most, are not written",
            hint=f"spreadsheets open CSV: -o {file.with_suffix('.csv')}",
        )
    what = f"the ending {ending} of {file.name}" if ending else f"{file.name}, without an ending,"
    raise UsageError(f"{what} names no format", hint=f"known: {', '.join(ENDINGS)}; or say --format")


def write(answer: Answer, name: str, file: Path | None, *, limit: int | None = None) -> Shown:
    """Write what a query returns to a file, or to stdout; `limit` is for the table alone.

    Raises UsageError if the query fails, CacheError if that is the cache's fault, WandbsyncError if it cannot be
    written; then an old file stays as it was.
    """
    module, function = FORMATS[name].writer.split(".")
    shown: Shown = getattr(import_module(f".{module}", __name__), function)(answer, file, limit)
    return shown
