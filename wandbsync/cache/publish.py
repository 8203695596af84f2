"""`wandb.duckdb`: the cache as tables and views for any DuckDB client.

Derived and rebuildable: the catalog's tables are copied, the rows stay in their segments, which the views name. It is
published under a new file and renamed, so no DuckDB file is ever open for writing while somebody reads it. People see
the tables and views of `describe()`; what these are made of is in the schema `inside`.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CacheError, NoRoom
from ..model import CONSOLE, FIRST_TIME, LAST_TIME
from . import catalog
from .disk import GONE, os_errors
from .frozen import obstacle
from .layout import KEPT, LAYOUT, SOURCES, TABLE_VIEWS, TABLES, VIEWS, metric_type
from .stats import sample_std
from .store import Cache

if TYPE_CHECKING:
    import duckdb

FILE = "wandb.duckdb"


def fill(con: duckdb.DuckDBPyConnection, cache: Cache) -> None:
    """Make the tables and views as the catalog stands now, in an empty database or a copy of what was published before.

    Of the copy, what has not changed since is kept. Raises duckdb.Error if it is of another layout, and CacheError if a
    segment is gone.
    """
    con.execute("CREATE SCHEMA IF NOT EXISTS inside")
    since = _published_at(con)
    while True:
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
                _load(con, name, columns, _fetch(cache, select, since))
            files = _files(cache)
        if not (gone := {path for path in files if not path.exists()}):
            break
        check_segments(cache, gone)  # else they were compacted and swept since they were listed: list again
    con.execute(
        "CREATE OR REPLACE TABLE inside.published AS "
        "SELECT ?::BIGINT AS commits, ?::BIGINT AS checks, ? AS folder, ? AS layout",
        [commits, checks, str(cache.folder.resolve()), LAYOUT],
    )
    for name, tables in TABLE_VIEWS.items():
        shown = ", ".join(f'"{column}"' for column, _, _ in TABLES[name][1])
        con.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT {shown} FROM {tables}")
    for name in VIEWS:
        con.execute(f"CREATE OR REPLACE VIEW {name} AS {_rows_of(name, files)}")


def check_segments(cache: Cache, wanted: Collection[Path] | None = None) -> None:
    """Raise CacheError if a segment that the catalog names is gone; `wanted` are those that are looked for."""
    gone = [path for path in _files(cache) if (wanted is None or path in wanted) and not path.exists()]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        raise CacheError(f"a segment of the cache is gone: {gone[0]}{more}", hint=GONE)


def _files(cache: Cache) -> list[Path]:
    """The segments that the catalog names."""
    named = cache.con.execute(f"SELECT file FROM segments WHERE removed_at IS NULL ORDER BY {catalog.OLDEST_FIRST}")
    return [cache.segment_path(row[0]) for row in named]


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


def _rows_of(stream: str, files: Sequence[Path]) -> str:
    """The query behind a view of rows; it names the segments that exist now."""
    rows = f"read_parquet([{', '.join(map(_quoted, files))}])"
    if not files:
        rows = (
            "(SELECT 0 AS stream, '' AS key, 0::BIGINT AS step, 0::DOUBLE AS value, 0::UTINYINT AS kind, "
            "'' AS value_json WHERE false)"
        )
    columns = "h.key, h.step, h.value, h.kind, h.value_json"
    if stream == CONSOLE:
        columns = f"h.step AS line, h.key AS printed_to, {_TIME.format('h.value')} AS time, h.value_json AS text"
    return (
        f"SELECT s.entity, s.project, s.run_id, {columns} FROM {rows} h "
        f"JOIN inside.streams s ON s.stream = h.stream WHERE s.name = '{stream}'"
    )


def _quoted(path: Path) -> str:
    return "'" + str(path.resolve()).replace("'", "''") + "'"


def _fetch(cache: Cache, select: str, since: int) -> list[list[Any]]:
    """What the catalog has, column by column; no columns if it has nothing."""
    cursor = cache.con.cursor()
    cursor.row_factory = None
    return [list(column) for column in zip(*cursor.execute(select, {"since": since}), strict=True)]


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
    arrays = [pa.array(column, arrow.get(kind, pa.string())) for column, kind in zip(data, kinds, strict=True)]
    con.register("incoming", pa.table(arrays, names=[one.strip('"') for one in names]))
    cells = ", ".join(casts.get(kind, "{0}").format(one) for one, kind in zip(names, kinds, strict=True))
    con.execute(f"INSERT INTO {name} SELECT {cells} FROM incoming")
    con.unregister("incoming")


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
        (cache.folder / "tmp").mkdir(mode=0o700, exist_ok=True)
        if path.exists():
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

    beside = cache.folder / "tmp" / f"{secrets.token_hex(6)}.duckdb"
    try:
        if again:
            shutil.copyfile(path, beside)
        with duckdb.connect(str(beside)) as con:
            fill(con, cache)
            con.execute("CHECKPOINT")  # or else a full disk would be told to nobody
        beside.chmod(0o600)
        return beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
        beside.with_suffix(".duckdb.wal").unlink(missing_ok=True)


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

    They are those of `wandb.duckdb`, or made in memory where that cannot be written. Raises CacheError or CacheBusy.
    """
    import duckdb

    con = duckdb.connect()
    spill = cache.folder / "tmp"  # where DuckDB puts what does not fit in memory
    with catalog.translated(cache.folder), os_errors(cache.folder), interruptible():
        if not _attach(con, cache):
            try:
                publish(cache)
                current = _attach(con, cache)
            except CacheError:
                current, spill = False, Path(tempfile.gettempdir())
            if not current:
                try:
                    fill(con, cache)
                except duckdb.Error as error:
                    raise CacheError(f"the cache {cache.folder} cannot be read: {error}") from error
    history = (cache.folder / "history").resolve()
    con.execute(f"SET allowed_directories = [{_quoted(history)[:-1]}/']")
    confine(con, spill)
    return con


def confine(con: duckdb.DuckDBPyConnection, spill: Path) -> None:
    """Let nobody who asks reach anything else by this connection; what does not fit in memory goes to `spill`."""
    con.execute(f"SET temp_directory = {_quoted(spill)}")
    for setting in ("enable_external_access", "autoinstall_known_extensions", "autoload_known_extensions"):
        con.execute(f"SET {setting} = false")
    con.execute("SET python_enable_replacements = false")
    con.execute("SET lock_configuration = true")


def _attach(con: duckdb.DuckDBPyConnection, cache: Cache) -> bool:
    """Use `wandb.duckdb` if it is there and current.

    Attached to a database in memory: opened by name, it would be the same instance for all of this process, and stay so
    when it is replaced.
    """
    import duckdb

    path = cache.folder / FILE
    if not path.exists():
        return False
    try:
        con.execute(f"ATTACH {_quoted(path)} AS wandb (READ_ONLY)")
        con.execute("USE wandb")
        if _is_current(con, cache):
            return True
    except duckdb.Error:
        pass
    con.execute("USE memory")
    con.execute("DETACH DATABASE IF EXISTS wandb")
    return False
