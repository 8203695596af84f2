"""A lake answered from, on a machine that has no cache.

What is known of projects, runs and metrics is put into a catalog of its own, in a temporary folder: everything that
asks a cache can ask that. Rows stay in the lake; of a series only the files are read that may have rows of that run
and metric.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Cache, catalog
from ..cache.metrics import STAT_COLUMNS
from ..errors import NothingCached, UsageError, WandbsyncError
from ..model import FIELDS, HISTORY, STREAMS, SYSTEM, Field, Kind, RunRef
from ..query import Answer, find_project, find_run, run_names, split_names
from . import tables
from .address import Address
from .delta import Lake, choose
from .there import of, seconds

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from numpy.typing import NDArray

LIGHT = ("server", "bucket", "run_id", "display_name", "state", "created_at", "source", "gone_at", "published")


class Reader:
    """A lake to be asked. Close it when done."""

    def __init__(self, address: Address, *, default_entity: str | None = None) -> None:
        self.lake, self.default_entity = Lake(address), default_entity
        if self.lake.table("projects") is None:
            raise NothingCached(f"there is no lake at {address}", hint="`wandbsync publish` makes one")
        self._folder = tempfile.TemporaryDirectory(prefix="wandbsync-lake-")
        self.cache = Cache(Path(self._folder.name) / "cache")  # what is known of what was asked for
        self._places: dict[RunRef, str] = {}  # predicates that choose a run's rows
        self._put_projects()

    def close(self) -> None:
        self.cache.close()
        self._folder.cleanup()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what is known of runs

    def project(self, spec: str, *, state: str | None = None, limit: int | None = None) -> tuple[str, str]:
        """A project; its runs are in `cache` then, the newest of them, up to `limit`, with all that is known of them.

        Raises NotFound with near matches.
        """
        found = find_project(self.cache, spec, default_entity=self.default_entity)
        chosen = self._put_runs(found, self._light(found))
        with catalog.translated(self.cache.folder):
            rows = self.cache.con.execute(
                "SELECT run_id FROM runs WHERE entity = ?1 AND project = ?2 AND (?3 IS NULL OR state = ?3) "
                "ORDER BY created_at DESC, run DESC LIMIT ?4",
                (*found, state, -1 if limit is None else limit),
            ).fetchall()
        self._describe(found, [chosen[row[0]] for row in rows])
        return found

    def runs(self, spec: str, names: str) -> list[RunRef]:
        """The runs that a list of names stands for; they are in `cache` then, with their metrics."""
        found = find_project(self.cache, spec, default_entity=self.default_entity)
        chosen = self._put_runs(found, self._light(found))
        known: Collection[str] = ()
        if "," in names:
            known = run_names(self.cache, "/".join(found))
        refs = list(dict.fromkeys(find_run(self.cache, found, name) for name in split_names(names, known)))
        self._describe(found, [chosen[ref.run_id] for ref in refs])
        for ref in refs:
            self._put_metrics(ref)
        return refs

    def _light(self, project: tuple[str, str]) -> dict[str, dict[str, Any]]:
        """What names the runs of a project. Of one that a server has and a machine too, the server's."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.lake.scan("runs", LIGHT, choose(entity=project[0], project=project[1])).to_pylist():
            old = found.get(row["run_id"])
            if row["gone_at"] is None and (old is None or old["server"].startswith("local@")):
                found[row["run_id"]] = row
        return found

    def _put_projects(self) -> None:
        columns = ["entity", "project", "description", "created_at", "updated_at", "total_runs", "url", "source"]
        rows = sorted(
            self.lake.scan("projects", ["server", *columns], None).to_pylist(),
            key=lambda row: row["server"].startswith("local@"),
        )
        with catalog.translated(self.cache.folder), catalog.transaction(self.cache.con):
            self.cache.con.executemany(
                f"INSERT OR IGNORE INTO projects ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
                [[seconds(row[name]) if name.endswith("_at") else row[name] for name in columns] for row in rows],
            )

    def _put_runs(self, project: tuple[str, str], light: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        con = self.cache.con
        with catalog.translated(self.cache.folder), catalog.transaction(con):
            con.executemany(
                "INSERT OR IGNORE INTO runs (entity, project, run_id, display_name, state, created_at, source, "
                "generation, revision) VALUES (?, ?, ?, ?, ?, ?, ?, 1, 1)",
                [
                    (
                        *project,
                        row["run_id"],
                        row["display_name"],
                        row["state"],
                        seconds(row["created_at"]),
                        row["source"],
                    )
                    for row in light.values()
                ],
            )
        for row in light.values():
            place = of((row["server"], *project), bucket=row["bucket"], run_id=row["run_id"])
            self._places[RunRef(*project, row["run_id"])] = place
        return light

    def _describe(self, project: tuple[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Put all that is known of some runs into the catalog."""
        wanted: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            wanted.setdefault((row["server"], row["bucket"]), []).append(row["run_id"])
        con, names = self.cache.con, tables.schema("runs").names
        with catalog.translated(self.cache.folder), catalog.transaction(con):
            for (server, bucket), ids in wanted.items():
                where = of((server, *project), bucket=bucket, run_id=ids)
                for row in self.lake.scan("runs", names, where).to_pylist():
                    self._describe_one(con, row)

    @staticmethod
    def _describe_one(con: Any, row: Mapping[str, Any]) -> None:
        values = {one.column: _cell(one, row[one.name]) for one in _DESCRIBED}
        key = row["entity"], row["project"], row["run_id"]
        run = con.execute(
            f"UPDATE runs SET {', '.join(f'{name} = ?' for name in values)} WHERE entity = ? AND project = ? "
            "AND run_id = ? RETURNING run",
            (*values.values(), *key),
        ).fetchone()[0]
        if row["synced_at"] is not None:
            con.execute("INSERT OR REPLACE INTO checks VALUES (?, ?)", (run, seconds(row["synced_at"])))
        for name, (count, _) in json.loads(row["published"] or "{}").items():
            logged = row["rows"] if name == HISTORY else count
            con.execute(
                "INSERT OR REPLACE INTO streams VALUES (?, ?, 1, ?, ?, ?)",
                (run * len(STREAMS) + STREAMS.index(name), run, name, logged, count),
            )

    def _put_metrics(self, ref: RunRef) -> None:
        there = [name for name in STAT_COLUMNS if name not in ("nulls", "nans", "infinities")]
        columns = ["stream", "key", "path", "non_null_count", "nan_count", "infinite_count", *there]
        rows = self.lake.scan("metrics", columns, self._places[ref]).to_pylist()
        with catalog.translated(self.cache.folder), catalog.transaction(self.cache.con):
            con = self.cache.con
            run = con.execute(
                "SELECT run FROM runs WHERE entity = ? AND project = ? AND run_id = ?",
                (ref.entity, ref.project, ref.run_id),
            ).fetchone()[0]
            for row in rows:
                row |= {"nulls": row["count"] - row["non_null_count"], "nans": row["nan_count"]}
                row |= {"infinities": row["infinite_count"]}
                stat = ["nan" if row[name] != row[name] else row[name] for name in STAT_COLUMNS]
                con.execute(
                    f"INSERT OR REPLACE INTO metrics (stream, key, path, {', '.join(STAT_COLUMNS)}) VALUES "
                    f"(?, ?, ?{', ?' * len(STAT_COLUMNS)})",
                    (run * len(STREAMS) + STREAMS.index(row["stream"]), row["key"], row["path"], *stat),
                )

    # -- rows

    def series(self, ref: RunRef, key: str, stream: str | None = None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The numbers of one metric, as `query.series` gives them. The run must be one that was asked for."""
        import numpy as np

        if key == "_step":
            steps = np.unique(self.lake.scan(HISTORY, ["step"], self._places[ref]).column("step").to_numpy())
            return steps, steps.astype(np.float64)
        if stream is None:
            sampled = key.startswith("system.") and not self._logged(ref, HISTORY, key)
            stream = SYSTEM if sampled else HISTORY
        found = self.lake.scan(stream, ["step", "value", "kind"], f"{self._places[ref]} AND {choose(key=key)}")
        step, value, kind = (column.to_numpy() for column in found.columns)
        plain = ~np.isin(kind, [Kind.NULL, Kind.JSON, Kind.LINE])
        step, value = step[plain], value[plain]
        order = np.argsort(step, kind="stable")
        return step[order], value[order]

    def _logged(self, ref: RunRef, stream: str, key: str) -> bool:
        from ..cache.rows import streams_of

        number = streams_of(self.cache, ref).get(stream)
        asked = "SELECT 1 FROM metrics WHERE stream = ? AND key = ?"
        return self.cache.con.execute(asked, (number, key)).fetchone() is not None

    # -- SQL

    def sql(self, query: str) -> Answer:
        """Run one read-only query over the tables of the lake. Raises UsageError or WandbsyncError."""
        from ..query.sql import ask

        return ask(self.connect(), query, self._errors)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """DuckDB with the tables of the lake as views; what a query's filters exclude is not read."""
        import duckdb

        from ..cache.publish import confine

        con = duckdb.connect()
        con.execute("SET TimeZone = 'UTC'")
        for name, columns in tables.COLUMNS.items():
            known = self.lake.table(name) is not None
            con.register(f"lake_{name}", self.lake.dataset(name) if known else tables.schema(name).empty_table())
            there = self.lake.dataset(name).schema.names if known else [column for column, _, _ in columns]
            shown = ", ".join(_shown(column, kind, there) for column, kind, _ in columns)
            con.execute(f"CREATE VIEW {name} AS SELECT {shown} FROM lake_{name}")
        confine(con, Path(self._folder.name))
        return con

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import duckdb
        import pyarrow as pa

        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            text = str(error).strip().split("\n\n")[0]
            if isinstance(error, OSError) or "Object at location" in text:
                raise WandbsyncError(
                    f"the lake {self.lake.address} cannot be read: {text}", hint="ask again"
                ) from error
            raise UsageError(
                f"the query failed: {text}", hint="`wandbsync sql --schema --lake URL` lists the tables"
            ) from error


_DESCRIBED = tuple(one for one in FIELDS if one.of in ("record", "cache"))


def _cell(one: Field, value: Any) -> Any:
    """A value of the lake as the catalog has it."""
    if one.type == "TIMESTAMP":
        return seconds(value)
    return json.dumps(value or []) if one.type.endswith("[]") else value


def _shown(column: str, kind: str, there: Iterable[str]) -> str:
    """A column of a view."""
    if column not in there:
        return f'NULL::{kind} AS "{column}"'
    return f'"{column}"::{kind} AS "{column}"' if kind in ("JSON", "TIMESTAMP") else f'"{column}"'
