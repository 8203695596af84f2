"""How results look: tables and JSON to stdout, talk and progress to stderr."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

import click

from .cache.catalog import plain
from .sizes import show_size as show_size
from .terminal import echo, json_text, printable

if TYPE_CHECKING:
    from .cache.retention import Limits
    from .cache.upkeep import Freed
    from .config import Config
    from .lake.publish import Published
    from .media import FileResult
    from .plot import PlotResult
    from .status import Snapshot
    from .sync import Progress, SyncReport


def show_json(value: Any, out: TextIO | None = None) -> None:
    """One JSON document; NaN and infinities as W&B writes them, as strings."""
    click.echo(json_text(json.dumps(plain(value), ensure_ascii=False, indent=2)), file=out)


def show_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], out: TextIO | None = None) -> None:
    """Aligned columns; numbers to the right."""
    headers, cells = [printable(header) for header in headers], [[show_cell(value) for value in row] for row in rows]
    widths = [max([_width(header), *(_width(row[i]) for row in cells)]) for i, header in enumerate(headers)]
    right = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(headers))]

    def line(row: Sequence[str]) -> str:
        parts = []
        for text, width, to_right in zip(row, widths, right, strict=True):
            gap = " " * (width - _width(text))
            parts.append(gap + text if to_right else text + gap)
        return "  ".join(parts).rstrip()

    echo(line(headers), file=out)
    echo("  ".join("-" * width for width in widths), file=out)
    for row in cells:
        echo(line(row), file=out)


def show_cell(value: Any) -> str:
    """One value on one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (dict, list, tuple)):
        value = json.dumps(plain(value), ensure_ascii=False, default=str)
    return printable(str(value))


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return text == ""
    return True


_NO_WIDTH = ("Mn", "Me", "Cf")  # marks on the character before, and joiners


def _width(text: str) -> int:
    """Columns on a terminal."""
    return sum(
        0 if unicodedata.category(char) in _NO_WIDTH else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def show_count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else show_cell(value)


def ago(timestamp: str | None) -> str:
    """How long ago an ISO timestamp is: 20s, 5m, 3h, 2d."""
    if not timestamp:
        return "never"
    return ago_seconds(datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp())


def ago_seconds(at: float | None) -> str:
    """The same for unix seconds."""
    return "never" if at is None else f"{show_seconds(time.time() - at)} ago"


def ahead_seconds(at: float | None) -> str:
    """How long until unix seconds."""
    return "" if at is None else f"in {show_seconds(at - time.time())}"


def show_seconds(seconds: float) -> str:
    """A time span in its largest unit: 20s, 5m, 3h, 2d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(max(0.0, seconds))}s"


def summary_line(summary: dict[str, Any]) -> str:
    """The first plain values of a summary, for one line of a table."""
    flat = {
        key: value for key, value in summary.items() if not key.startswith("_") and not isinstance(value, (dict, list))
    }
    text = ", ".join(f"{shorten(key, 40)}={shorten(show_cell(value), 20)}" for key, value in list(flat.items())[:3])
    return f"{text} (+{len(flat) - 3})" if len(flat) > 3 else text


def report_line(report: SyncReport) -> str:
    """What a sync did, on one line."""
    if not report.planned:
        found = f"{report.listed:,} runs" if report.requests else f"{report.logs:,} logs"
        return f"up to date: {found}, nothing new ({report.seconds:.2f} s)"
    return (
        f"synced {report.runs} runs ({report.new_runs} new), {report.rows:,} rows, {report.values:,} values from "
        f"{show_size(report.bytes_read)} in {report.seconds:.2f} s"
    )


def report_fields(report: SyncReport) -> dict[str, Any]:
    """A sync's report as JSON."""
    return {
        "logs": report.logs,
        "listed": report.listed,
        "planned": [str(action) for action in report.planned],
        "runs": report.runs,
        "new_runs": report.new_runs,
        "rows": report.rows,
        "values": report.values,
        "bytes_read": report.bytes_read,
        "requests": report.requests,
        "waited": report.waited,
        "deleted": report.deleted,
        "problems": [fields(problem) for problem in report.problems],
        "notes": report.notes,
        "seconds": report.seconds,
        "dry_run": report.dry_run,
        "partial": report.partial,
    }


def freed_fields(freed: Freed, limits: Limits, *, dry_run: bool) -> dict[str, Any]:
    """What gc removed, or would remove, as JSON."""
    return {
        "actions": [str(action) for action in freed.actions],
        "runs": freed.runs,
        "freed_bytes": freed.bytes,
        "files": freed.swept.files,
        "file_bytes": freed.swept.bytes,
        "young": freed.swept.young,
        "max_size_bytes": limits.max_size,
        "over_bytes": freed.short.bytes if freed.short else 0,
        "why_over": str(freed.short) if freed.short else None,
        "dry_run": dry_run,
    }


def schema_fields(tables: Mapping[str, tuple[str, list[tuple[str, str, str]]]]) -> dict[str, Any]:
    """Tables with their titles and columns, as JSON."""
    return {
        name: {"title": title, "columns": [dict(zip(("name", "type", "meaning"), one, strict=True)) for one in columns]}
        for name, (title, columns) in tables.items()
    }


def published_line(report: Published) -> str:
    """What a publication did, on one line."""
    if report.dry_run:
        return f"would publish {len(report.planned)} runs to {report.address}"
    if not report.runs:
        return f"up to date: {report.address} ({report.seconds:.2f} s)"
    return (
        f"published {report.runs:,} runs, {report.values:,} values to {report.address} in {report.commits} commits, "
        f"{report.seconds:.2f} s"
    )


def published_fields(report: Published) -> dict[str, Any]:
    """A publication's report as JSON."""
    return {
        "address": report.address,
        "planned": [str(action) for action in report.planned],
        "projects": report.projects,
        "runs": report.runs,
        "values": report.values,
        "commits": report.commits,
        "conflicts": report.conflicts,
        "left": report.left,
        "problems": report.problems,
        "seconds": report.seconds,
        "dry_run": report.dry_run,
    }


def plot_fields(result: PlotResult) -> dict[str, Any]:
    """What became of one metric, as JSON."""
    return {
        "metric": result.metric,
        "metrics": list(result.metrics or (result.metric,)),
        "path": str(result.path) if result.path else None,
        "data": str(result.data) if result.data else None,
        "axis": result.axis,
        "cached": result.cached,
        "runs": [run.run_id for run in result.runs],
        "points": list(result.points),
        "non_finite": list(result.non_finite),
        "skipped": list(result.skipped),
        "error": result.error,
    }


def file_fields(result: FileResult) -> dict[str, Any]:
    """What became of one file, as JSON."""
    return {
        "name": result.file.name,
        "outcome": result.outcome,
        "path": str(result.path) if result.path else None,
        "size": result.file.size,
        "md5": result.md5,
        "bytes": result.bytes,
        "note": result.note,
        "error": result.error.line() if result.error else None,
    }


def snapshot_fields(snapshot: Snapshot, *, alive: bool) -> dict[str, Any]:
    """How the daemon is, or was when it ended, as JSON; times as ISO timestamps."""
    from .query import timestamp

    def with_times(part: dict[str, Any]) -> dict[str, Any]:
        return {
            name: timestamp(value) if name.endswith(("_at", "_until", "since")) and isinstance(value, float) else value
            for name, value in part.items()
        }

    values = with_times(fields(snapshot)) | {"alive": alive}
    for name in ("sources", "jobs", "live"):
        values[name] = [with_times(part) for part in values[name]]
    values["server"] = None if values["server"] is None else with_times(values["server"])
    return values


def config_fields(config: Config) -> dict[str, Any]:
    """The settings by their keys in the file; durations in seconds."""
    import operator

    from .config import KEYS, PACE

    def text(value: Any) -> Any:
        if isinstance(value, tuple):
            return [text(one) for one in value]
        return value if value is None or isinstance(value, (int, float)) else str(value)

    values = {key: text(operator.attrgetter(field)(config)) for key, (field, _, _) in KEYS.items()}
    for project, pace in config.paces:
        values |= {f'projects."{project}".{name}': getattr(pace, name) for name in PACE}
    return values | {"file": text(config.file)}


def fields(value: Any) -> dict[str, Any]:
    """A flat dataclass as JSON."""
    import dataclasses

    return dataclasses.asdict(value)


@contextmanager
def count_progress(label: str, *, quiet: bool) -> Iterator[Any]:
    """A bar on a terminal, nothing in a pipe; gives a callable that takes done and total."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr) as bar:

        def tell(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield tell


def progress_line(at: Progress | None) -> str:
    """How far a pass is, in words."""
    if at is None:
        return ""
    if not at.runs_total:
        return f"{at.listed:,} runs listed"
    waited = f", {at.waited:.0f} s waited for the rate limit" if at.waited >= 1 else ""
    return f"{at.runs_done:,}/{at.runs_total:,} runs, {at.rows:,} rows, {show_size(at.bytes_done)}{waited}"


@contextmanager
def sync_progress(*, quiet: bool) -> Iterator[Any]:
    """A bar on a terminal, of bytes or runs, nothing in a pipe; gives the callable that `sync` reports to."""
    if quiet or not sys.stderr.isatty():
        yield lambda progress: None
        return
    bar: Any = None

    def tell(progress: Progress) -> None:
        nonlocal bar
        if bar is None:
            bar = click.progressbar(length=1, label="sync", file=sys.stderr, item_show_func=progress_line)
            bar.__enter__()
        by_bytes = progress.bytes_total > 0
        bar.length = max(1, progress.bytes_total if by_bytes else progress.runs_total)
        bar.update((progress.bytes_done if by_bytes else progress.runs_done) - bar.pos, progress)

    try:
        yield tell
    finally:
        if bar is not None:
            bar.__exit__(None, None, None)
