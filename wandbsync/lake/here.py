"""What this cache has: its projects, the facts that are planned with, and all there is of some runs at one moment."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from ..cache import Cache, catalog
from ..cache.disk import os_errors
from ..cache.eviction import EVICTED
from ..cache.layout import metric_type
from ..cache.metrics import STAT_COLUMNS
from ..cache.stats import sample_std
from ..model import Kind
from .plan import Reach, RunHere

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from ..cache.segments import Block
    from ..cache.stamps import Segment

Project = tuple[str, str, str]  # server, entity, project


@dataclass(frozen=True, slots=True)
class ProjectHere:
    """A project of the cache; `newest` and `runs` tell whether anything in it changed."""

    server: str
    row: Mapping[str, Any]  # as the catalog has it
    runs: int
    newest: int  # the highest revision of its runs

    @property
    def key(self) -> Project:
        return self.server, self.row["entity"], self.row["project"]


def identity(cache: Cache) -> str:
    """The name of this cache in lakes, which it gives itself once; no two caches have the same."""
    path = cache.folder / "lake" / "writer"
    with os_errors(cache.folder):
        files.private_folder(path.parent)
        if not path.exists():
            beside = path.with_name(f"writer-{secrets.token_hex(6)}")
            files.write(beside, secrets.token_hex(12).encode(), private=True)
            with contextlib.suppress(FileExistsError):  # of two processes one gives the name
                path.hardlink_to(beside)
            beside.unlink()
        return path.read_text()


def projects(cache: Cache, machine: str) -> list[ProjectHere]:
    """The projects of the cache that have runs, each with its server."""
    with catalog.translated(cache.folder), catalog.snapshot(cache.con):
        rows = cache.con.execute(
            "SELECT p.*, count(r.run) AS runs, max(r.revision) AS newest, max(r.url) AS run_url, "
            "(SELECT count(*) FROM runs x WHERE x.entity = p.entity AND x.project = p.project "
            "AND x.deleted_at IS NULL) AS shown FROM projects p JOIN runs r ON r.entity = p.entity "
            "AND r.project = p.project GROUP BY p.entity, p.project ORDER BY p.entity, p.project"
        ).fetchall()
        synced = [row[0] for row in cache.con.execute("SELECT location FROM sources WHERE kind = 'api'")]
    servers = {name.strip(): _host(url) for url, _, name in (location.partition(" ") for location in synced)}
    found = []
    for row in rows:
        server = servers.get(f"{row['entity']}/{row['project']}")
        if server is None and row["source"] == "api":
            server = _host(row["url"] or row["run_url"] or "")
        found.append(ProjectHere(server or f"local@{machine}", dict(row), row["runs"], row["newest"]))
    return found


def _host(url: str) -> str | None:
    """The server of an address; W&B's cloud has its pages elsewhere than its API."""
    from urllib.parse import urlsplit

    place = urlsplit(url).netloc.rpartition("@")[2].lower()
    return {"wandb.ai": "api.wandb.ai"}.get(place, place) or None


def runs(cache: Cache, entity: str, project: str) -> list[RunHere]:
    """The runs of a project, in the order in which they came."""
    with catalog.translated(cache.folder):
        rows = cache.con.execute(
            "SELECT r.run, r.run_id, r.revision, r.generation, e.run IS NOT NULL AS evicted, "
            "json_group_object(s.name, s.count) FILTER (WHERE s.name IS NOT NULL) AS streams FROM runs r "
            f"LEFT {EVICTED} LEFT JOIN streams s ON s.run = r.run AND s.generation = r.generation "
            "WHERE r.entity = ? AND r.project = ? GROUP BY r.run ORDER BY r.run",
            (entity, project),
        ).fetchall()
    return [
        RunHere(
            row["run"],
            row["run_id"],
            row["revision"],
            row["generation"],
            _values(json.loads(row["streams"] or "{}")),
            bool(row["evicted"]),
        )
        for row in rows
    ]


def _values(streams: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in streams.items() if count}


@dataclass(frozen=True, slots=True)
class Stream:
    """The values of one stream of one run."""

    run_id: str
    bucket: str
    number: int  # in the catalog
    count: int
    after: Reach  # what is published


@dataclass(slots=True)
class Moment:
    """All there is of some runs, as the catalog stood at one moment."""

    runs: dict[str, RunHere]
    records: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    files: list[dict[str, Any]]
    numbers: dict[tuple[str, str], int]  # run_id, stream -> its number in the catalog
    segments: dict[str, list[Segment]]  # stream -> those that hold rows of it


def moment(cache: Cache, numbers: Sequence[int]) -> Moment:
    """Read what is known of runs (the catalog's numbers), and which segments hold their rows."""
    some = json.dumps(list(numbers))
    which = "run IN (SELECT value FROM json_each(?))"
    with catalog.translated(cache.folder), catalog.snapshot(cache.con):
        con = cache.con
        records = con.execute(
            f"SELECT r.run, revision, r.generation, e.run IS NOT NULL AS evicted, {catalog.RUN} FROM runs r "
            "LEFT JOIN checks c ON c.run = r.run "
            f"LEFT {EVICTED} WHERE r.{which} ORDER BY r.run",
            (some,),
        ).fetchall()
        streams = con.execute(
            "SELECT r.run_id, s.name, s.stream, s.count FROM runs r JOIN streams s ON s.run = r.run "
            f"AND s.generation = r.generation WHERE r.{which}",
            (some,),
        ).fetchall()
        metrics = con.execute(
            "SELECT r.run_id, s.name, m.* FROM runs r JOIN streams s ON s.run = r.run AND s.generation = "
            f"r.generation JOIN metrics m ON m.stream = s.stream WHERE s.name <> 'console' AND r.{which}",
            (some,),
        ).fetchall()
        files = con.execute(
            f"SELECT r.run_id, f.* FROM files f JOIN runs r USING (run) WHERE r.{which}", (some,)
        ).fetchall()
        held = {}
        for name in {row["name"] for row in streams}:
            held[name] = cache.segments_of(row["stream"] for row in streams if row["name"] == name)
    values: dict[str, dict[str, int]] = {}
    for row in streams:
        if row["count"]:
            values.setdefault(row["run_id"], {})[row["name"]] = row["count"]
    found = {
        row["run_id"]: RunHere(
            row["run"],
            row["run_id"],
            row["revision"],
            row["generation"],
            values.get(row["run_id"], {}),
            bool(row["evicted"]),
        )
        for row in records
    }
    return Moment(
        found,
        [dict(row) for row in records],
        [_metric(row) for row in metrics],
        [dict(row) for row in files],
        {(row["run_id"], row["name"]): row["stream"] for row in streams},
        held,
    )


def _metric(row: Any) -> dict[str, Any]:
    """What the catalog knows of a metric, in the words of the lake."""
    stat = {name: row[name] for name in STAT_COLUMNS}
    for name in ("first_value", "last_value"):
        stat[name] = None if stat[name] is None else float(stat[name])  # NaN is kept as text
    return stat | {
        "run_id": row["run_id"],
        "stream": row["name"],
        "key": row["key"],
        "path": row["path"],
        "type": metric_type(row["kinds"], row["last_json"]),
        "non_null_count": row["count"] - row["nulls"],
        "nan_count": row["nans"],
        "infinite_count": row["infinities"],
        "std": sample_std(row["deviation"], row["numbers"]),
    }


def blocks(paths: Sequence[Path], streams: Sequence[Stream]) -> Iterator[tuple[Block, Any]]:
    """The rows of streams that are not published, key after key, with the index into `streams` of each row.

    Raises FileNotFoundError if a segment was merged and swept meanwhile.
    """
    import numpy as np

    from ..cache import segments

    if not streams:
        return
    order = np.argsort([one.number for one in streams])
    numbers = np.array([streams[i].number for i in order], np.int32)
    lasts = [None if one.after.last_step is None else one.after.last_step for one in streams]
    after = None if None in lasts else min(last for last in lasts if last is not None)
    floor = np.array([np.iinfo(np.int64).min if lasts[i] is None else lasts[i] for i in order], np.int64)
    none = np.array([lasts[i] is None for i in order])
    for block in segments.merged(list(paths), numbers.tolist(), after=after):
        at = np.searchsorted(numbers, block.stream)
        wanted = (block.step > floor[at]) | none[at]
        if not wanted.all():
            at, block = at[wanted], some(block, wanted)
        if len(block):
            yield block, order[at]


def some(block: Block, wanted: NDArray[np.bool_] | slice) -> Block:
    """Some of the rows: those of a mask, or of a slice."""
    import pyarrow as pa

    from ..cache.segments import Block

    text = block.text
    if text is not None:
        text = text[wanted] if isinstance(wanted, slice) else text.filter(pa.array(wanted))
    return Block(
        block.names,
        block.key[wanted],
        block.stream[wanted],
        block.step[wanted],
        block.value[wanted],
        block.kind[wanted],
        text,
    )


def arrow(project: Project, streams: Sequence[Stream], block: Block, index: Any, schema: pa.Schema) -> pa.Table:
    """Rows as the lake has them."""
    import numpy as np
    import pyarrow as pa

    count = len(block)
    empty = (block.kind == Kind.NULL) | (block.kind == Kind.JSON) | ((block.kind == Kind.LINE) & np.isnan(block.value))
    buckets = sorted({one.bucket for one in streams})
    bucket = np.array([buckets.index(one.bucket) for one in streams], np.int32)[index]

    def words(codes: Any, names: Sequence[str]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))

    columns = {
        **{
            name: pa.repeat(pa.scalar(value, pa.string()), count)
            for name, value in zip(("server", "entity", "project"), project, strict=True)
        },
        "bucket": words(bucket, buckets).dictionary_decode(),  # delta-rs partitions by plain text only
        "run_id": words(index, [one.run_id for one in streams]),
        "key": words(block.key, block.names),
        "step": pa.array(block.step),
        "value": pa.array(block.value, mask=empty),
        "kind": pa.array(block.kind.astype(np.int8)),
        "value_json": pa.nulls(count, pa.large_string()) if block.text is None else block.text,
    }
    return pa.table({field.name: columns[field.name] for field in schema})
