"""`wandb.duckdb`: the cache as tables and views for any DuckDB client.

Derived and rebuildable: the catalog's tables are copied, the rows stay in their segments, which the views name. It is
published under a new file and renamed, so no DuckDB file is ever open for writing while somebody reads it. People see
the tables and views of `describe()`; what these are made of is in the schema `inside`.
"""

from __future__ import annotations

import base64
import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__, files
from ..errors import CacheError, Damaged, NoRoom
from ..model import CONSOLE, FIRST_TIME, LAST_TIME
from . import catalog, seal, snapshots
from .disk import GONE, os_errors
from .frozen import obstacle
from .layout import KEPT, LAYOUT, SOURCES, TABLE_VIEWS, TABLES, VIEWS, comments, metric_type
from .stamps import Segment, checked, named
from .stats import sample_std
from .store import Cache

if TYPE_CHECKING:
    import duckdb

FILE = "wandb.duckdb"
STORAGE = "v1.0.0"  # of DuckDB's formats the one that every version from 1.0 on opens
BLOCK = 16_384  # bytes, the least: the tables are small, and of 262,144 each would take several
WITH_PARENT = (
    "SELECT l.entity, l.project, l.run_id, h.key, h.step, h.value, h.kind, h.value_json FROM inside.lineage l "
    "JOIN history h ON h.entity = l.entity AND h.project = l.project AND h.run_id = l.source_id "
    "WHERE l.until IS NULL OR h.step <= l.until"
)


def fill(con: duckdb.DuckDBPyConnection, cache: Cache) -> list[Segment]:
    """Make the tables and views as the catalog stands now, in an empty database or a copy of what was published before.

    The segments that the views name come back.

    Of the copy, what has not changed since is kept. Raises duckdb.Error if it is of another layout, and CacheError if a
    segment is gone.
    """
    import duckdb

    con.execute("BEGIN")  # else each statement would be flushed for itself
    try:
        held = _fill(con, cache)
        con.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            con.execute("ROLLBACK")
        raise
    return held


def _fill(con: duckdb.DuckDBPyConnection, cache: Cache) -> list[Segment]:
    con.execute("CREATE SCHEMA IF NOT EXISTS inside")
    since = _published_at(con)
    while True:
        read_at = time.time()
        with catalog.snapshot(cache.con):
            commits, checks = catalog.version(cache.con)
            for name, (columns, select) in SOURCES.items():
                if name in KEPT and since >= 0:
                    owner, owners = KEPT[name]
                    con.execute(
                        f"DELETE FROM {name} WHERE {owner} NOT IN (SELECT {owner} FROM {owners} "
                        f"WHERE revision <= {since})"
                    )
                else:
                    con.execute(f"CREATE OR REPLACE TABLE {name} ({columns})")
                data = _fetch(cache, select, since)
                if name == "files" and data:
                    data[-1] = _places(cache, data[-2], data[-1])
                _load(con, name, columns, data)
            held = _files(cache)
        segments = [cache.segment_path(one.file) for one in held]
        if not (gone := {path for path in segments if not path.exists()}):
            break
        check_segments(cache, gone)  # else they were compacted and swept since they were listed: list again
    con.execute(
        "CREATE OR REPLACE TABLE inside.published AS "
        "SELECT ?::BIGINT AS commits, ?::BIGINT AS checks, ? AS folder, ? AS layout",
        [commits, checks, str(cache.folder.resolve()), LAYOUT],
    )
    con.execute(
        "CREATE OR REPLACE TABLE cache AS SELECT make_timestamp((? * 1e6)::BIGINT) AS written_at, ? AS folder, "
        "? AS version",
        [read_at, str(cache.folder.resolve()), __version__],
    )
    for name, tables in TABLE_VIEWS.items():
        shown = ", ".join(f'"{column}"' for column, _, _ in TABLES[name][1])
        con.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {shown} FROM {tables}")
    for name in VIEWS:
        query = WITH_PARENT if name == "history_with_parent" else _rows_of(name, segments)
        con.execute(f"CREATE OR REPLACE VIEW {name} AS {query}")
    con.execute(";".join(comments()))
    return held


def check_segments(cache: Cache, wanted: Collection[Path] | None = None) -> None:
    """Raise CacheError if a segment that the catalog names is gone, and Damaged if one is.

    With `wanted`, only if one of these is gone.
    """
    held = _files(cache)
    paths = (cache.segment_path(one.file) for one in held)
    gone = [path for path in paths if (wanted is None or path in wanted) and not path.exists()]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise CacheError(f"a segment of the cache is gone: {gone[0]}{more}", hint=GONE)
    if wanted is None:
        with contextlib.suppress(FileNotFoundError):  # merged and swept in this very moment
            checked(cache, held)


def _files(cache: Cache) -> list[Segment]:
    """The segments that the catalog names."""
    return named(cache, "segments WHERE removed_at IS NULL")


def _published_at(con: duckdb.DuckDBPyConnection) -> int:
    """The commit that a database was published at, -1 if it is empty."""
    import duckdb

    if not con.execute("SELECT 1 FROM duckdb_tables() WHERE schema_name = 'inside'").fetchall():
        return -1
    found = con.execute("SELECT commits FROM inside.published WHERE layout = ?", [LAYOUT]).fetchall()
    if not found:
        raise duckdb.CatalogException("of another layout")
    return int(found[0][0])


# Unix seconds as a time; null for what is none.
_TIME = f"CASE WHEN {{0}} BETWEEN {FIRST_TIME:.0f} AND {LAST_TIME:.0f} THEN make_timestamp(({{0}} * 1e6)::BIGINT) END"


def _rows_of(stream: str, segments: Sequence[Path]) -> str:
    """The query behind a view of rows; it names the segments that exist now."""
    rows = f"read_parquet([{', '.join(map(_quoted, segments))}])"
    if not segments:
        rows = (
            "(SELECT 0 AS stream, '' AS key, 0::BIGINT AS step, 0::DOUBLE AS value, 0::UTINYINT AS kind, "
            "'' AS value_json WHERE false)"
        )
    columns = "h.key, h.step, h.value, h.kind, h.value_json"
    if stream == CONSOLE:
        columns = (
            "h.step AS line, split_part(h.key, ':', 1) AS printed_to, nullif(substr(h.key, 8), '') AS label, "
            f"{_TIME.format('h.value')} AS time, h.value_json AS text"
        )
    found = (
        f"SELECT s.entity, s.project, s.run_id, {columns} FROM {rows} h "
        f"JOIN inside.streams s ON s.stream = h.stream WHERE s.name = '{stream}'"
    )
    if stream == CONSOLE:
        opened = "SELECT key, line AS step, time AS value, text AS value_json, entity, project, run_id"
        found += f" UNION ALL SELECT h.entity, h.project, h.run_id, {columns} FROM ({opened} FROM inside.open_lines) h"
    return found


def _quoted(path: Path) -> str:
    return "'" + str(path.resolve()).replace("'", "''") + "'"


def _fetch(cache: Cache, select: str, since: int) -> list[list[Any]]:
    """What the catalog has, column by column; no columns if it has nothing."""
    cursor = cache.con.cursor()
    cursor.row_factory = None
    return [list(column) for column in zip(*cursor.execute(select, {"since": since}), strict=True)]


def _places(cache: Cache, md5: Sequence[str | None], local: Sequence[str | None]) -> list[str | None]:
    """Where files are on this machine: their own paths, or their copies in the cache."""
    kept = {path.name: str(path) for path in (cache.folder / "media").glob("??/*")}
    if not kept:
        return list(local)
    return [path or kept.get(_hex(text or "")) for path, text in zip(local, md5, strict=True)]


def _hex(md5: str) -> str:
    """An MD5 in hex, which W&B writes in base64, and some servers in hex."""
    try:
        return md5 if len(md5) == 32 else base64.b64decode(md5, validate=True).hex()
    except ValueError:
        return ""


def _load(con: duckdb.DuckDBPyConnection, name: str, columns: str, data: list[list[Any]]) -> None:
    """Add rows to a table of `columns`, "name TYPE, ..."; times come as unix seconds, lists as JSON."""
    import pyarrow as pa

    if not data:
        return
    names, kinds = zip(*(column.split() for column in columns.split(", ")), strict=True)
    if name == "inside.metrics":
        stream, key, kinds_seen, text, last, deviation, numbers, *others = data
        data = [stream, key, list(map(metric_type, kinds_seen, text)), text, [_number(one) for one in last]]
        data += [list(map(sample_std, deviation, numbers)), numbers, *others]
    arrow = {"BIGINT": pa.int64(), "BOOLEAN": pa.int64(), "DOUBLE": pa.float64(), "TIMESTAMP": pa.float64()}
    casts = {"TIMESTAMP": _TIME, "VARCHAR[]": "from_json({0}, '[\"VARCHAR\"]')"}
    data = [_json(column) if kind == "JSON" else column for column, kind in zip(data, kinds, strict=True)]
    arrays = [pa.array(column, arrow.get(kind, pa.string())) for column, kind in zip(data, kinds, strict=True)]
    con.register("incoming", pa.table(arrays, names=[one.strip('"') for one in names]))
    cells = ", ".join(casts.get(kind, "{0}").format(one) for one, kind in zip(names, kinds, strict=True))
    con.execute(f"INSERT INTO {name} SELECT {cells} FROM incoming")
    con.unregister("incoming")


def _json(column: list[Any]) -> list[Any]:
    """JSON texts as DuckDB takes them: half a surrogate pair, which is no character, as U+FFFD."""
    return [_ESCAPE.sub(_whole, text) if text and "\\ud" in text.lower() else text for text in column]


_ESCAPE = re.compile(r"\\(?:u(?P<pair>d[89ab]..\\ud[c-f]..)|u(?P<half>d[89a-f]..)|.)", re.IGNORECASE)


def _whole(escape: re.Match[str]) -> str:
    return r"\ufffd" if escape["half"] else escape[0]


def _number(value: float | str | None) -> float | None:
    """A number as the catalog keeps it: SQLite has no NaN, it is kept as text."""
    return float(value) if isinstance(value, str) else value


def _is_current(con: duckdb.DuckDBPyConnection, cache: Cache) -> bool:
    """Whether the `wandb.duckdb` that is attached says what the catalog says."""
    found = con.execute("SELECT commits, checks, folder, layout FROM inside.published").fetchall()
    return found == [(*catalog.version(cache.con), str(cache.folder.resolve()), LAYOUT)]


def publish(cache: Cache) -> Path:
    """Write `wandb.duckdb` anew and put it in place of the old one. Raises CacheError or CacheBusy."""
    import duckdb

    path = cache.folder / FILE
    with catalog.translated(cache.folder), os_errors(cache.folder), interruptible():
        files.private_folder(cache.folder / "tmp")
        if seal.holds(path):
            try:
                return _write(cache, path, again=True)
            except duckdb.Error:  # of another layout or DuckDB version, or damaged: make it all anew
                pass
        try:
            return _write(cache, path, again=False)
        except duckdb.Error as error:
            if "No space left" in str(error) or obstacle(cache.folder) == "full":
                raise NoRoom(f"no room left to write {path}") from error
            raise CacheError(f"cannot write {path}: {error}", hint="check the permissions, or try again") from error


def _write(cache: Cache, path: Path, *, again: bool) -> Path:
    import duckdb

    with snapshots.outlived(path), files.replacing(path, private=True, room=cache.folder / "tmp") as beside:
        if again:
            shutil.copyfile(path, beside)
        else:
            beside.unlink()  # DuckDB makes its own, and refuses an empty one
        try:
            with duckdb.connect() as con:
                con.execute(f"ATTACH {_quoted(beside)} AS wandb (STORAGE_VERSION '{STORAGE}', BLOCK_SIZE {BLOCK})")
                con.execute("USE wandb")
                fill(con, cache)
                con.execute("CHECKPOINT wandb")  # or else a full disk would be told to nobody
        finally:
            beside.with_name(f"{beside.name}.wal").unlink(missing_ok=True)
        beside.chmod(files.PRIVATE)
    seal.put(path)
    return path


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C as Python has it: where it comes while DuckDB works, that raises a RuntimeError of its own."""
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from error
        raise


def connect(cache: Cache) -> duckdb.DuckDBPyConnection:
    """A connection that can only read, and only this cache: tables and views as the catalog stands now.

    DuckDB verifies no checksums: if any segment is damaged, it may read none (`check_segments` tells).

    Raises CacheError or CacheBusy.
    """
    import duckdb

    con = duckdb.connect()
    held, in_file = attach(con, cache)
    # What does not fit in memory goes where DuckDB may put it.
    spill = cache.folder / "tmp" if in_file else Path(tempfile.gettempdir())
    with catalog.translated(cache.folder), os_errors(cache.folder):
        history = _quoted(cache.folder / "history")[:-1] + "/'"
        try:
            checked(cache, [one for one in held if cache.segment_path(one.file).exists()])
        except (Damaged, FileNotFoundError):
            history = ""  # what needs no rows is answered all the same
    con.execute(f"SET allowed_directories = [{history}]")
    confine(con, spill)
    return con


def attach(con: duckdb.DuckDBPyConnection, cache: Cache) -> tuple[list[Segment], bool]:
    """Make tables and views as the catalog stands now what a connection, to a database in memory, asks by their names.

    They are those of `wandb.duckdb`, or made in memory where that cannot be written. The segments that they name come
    back, and whether they are in the file. Raises CacheError or CacheBusy.
    """
    import duckdb

    with catalog.translated(cache.folder), os_errors(cache.folder), interruptible():
        if (held := _attach(con, cache)) is not None:
            return held, True
        try:
            publish(cache)
            if (held := _attach(con, cache)) is not None:
                return held, True
            writable = True
        except CacheError:
            writable = False
        try:
            return fill(con, cache), writable
        except duckdb.Error as error:
            raise CacheError(f"the cache {cache.folder} cannot be read: {error}") from error


def confine(con: duckdb.DuckDBPyConnection, spill: Path) -> None:
    """Let nobody who asks reach anything else by this connection; what does not fit in memory goes to `spill`."""
    con.execute(f"SET temp_directory = {_quoted(spill)}")
    for setting in ("enable_external_access", "autoinstall_known_extensions", "autoload_known_extensions"):
        con.execute(f"SET {setting} = false")
    con.execute("SET python_enable_replacements = false")
    con.execute("SET lock_configuration = true")


def _attach(con: duckdb.DuckDBPyConnection, cache: Cache) -> list[Segment] | None:
    """Use `wandb.duckdb` if it is current, and as it was published; the segments that its views name.

    Attached to a database in memory: opened by name, it would be the same instance for all of this process, and stay so
    when it is replaced.
    """
    import duckdb

    path = cache.folder / FILE
    con.execute("USE memory")
    con.execute("DETACH DATABASE IF EXISTS wandb")  # as it was before
    if not seal.holds(path):
        return None
    try:
        con.execute(f"ATTACH {_quoted(path)} AS wandb (READ_ONLY)")
        con.execute("USE wandb")
        with catalog.snapshot(cache.con):
            if _is_current(con, cache):
                return _files(cache)
    except duckdb.Error:
        pass
    con.execute("USE memory")
    con.execute("DETACH DATABASE IF EXISTS wandb")
    return None
