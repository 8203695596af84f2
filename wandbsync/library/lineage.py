"""Forks with their parents' rows: a cache for a while in which the rows of a run begin where its first ancestor's do.

Whatever reads a cache reads that one; its numbers and statistics are those of all the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ..cache import Cache, Share, catalog
from ..cache.lineage import lineage, parent
from ..errors import NothingCached
from ..model import HISTORY, STREAMS, Columns, RunRecord, RunRef

if TYPE_CHECKING:
    import pyarrow as pa

Fetch = Callable[[Sequence[RunRef]], None]


@contextmanager
def with_parents(cache: Cache, refs: Sequence[RunRef], fetch: Fetch) -> Iterator[Cache]:
    """A cache that has these runs, forks with the rows of their parents up to the step of the fork.

    `fetch` brings the rows of parents that are not here, if it can. Without a fork among them it is `cache` itself.
    Raises NothingCached if a parent's rows are not to be had.
    """
    if not any(parent(cache, ref) for ref in refs):
        yield cache
        return
    _fetch_parents(cache, refs, fetch)
    with TemporaryDirectory(prefix="wandbsync-forks-") as folder, Cache(Path(folder) / "cache") as whole:
        for ref in refs:
            _copy(cache, whole, ref)
        yield whole


def _fetch_parents(cache: Cache, refs: Sequence[RunRef], fetch: Fetch) -> None:
    seen = set(refs)
    waiting = {one for ref in refs if (one := parent(cache, ref)) and one not in seen}
    while waiting:
        fetch(sorted(waiting))
        seen |= waiting
        waiting = {above for one in waiting if (above := parent(cache, one)) and above not in seen}


def _copy(cache: Cache, whole: Cache, ref: RunRef) -> None:
    """The run with its ancestors' rows, the oldest first."""
    family = lineage(cache, ref)
    missing = parent(cache, family[-1][0])
    if missing is not None and len(family) < 100:
        raise NothingCached(
            f"the parent of {ref}, {missing}, is not here", hint=f"`wandbsync sync {missing}` fetches it"
        )
    streams: dict[str, list[Columns]] = {}
    paths: dict[str, Sequence[str]] = {}
    for source, until in reversed(family):
        paths |= {key: path for key, path in cache.key_paths(source).items() if len(path) > 1}
        for stream in STREAMS if source == ref else (HISTORY,):
            columns = _columns(cache, source, stream, until)
            if len(columns):
                streams.setdefault(stream, []).append(columns)
    state, origin = cache.con.execute(
        "SELECT state, source FROM runs WHERE entity = ? AND project = ? AND run_id = ?", _name(ref)
    ).fetchone()
    whole.commit([Share(ref, None, RunRecord(state, origin), streams, paths)])
    _describe(cache, whole, ref)


def _columns(cache: Cache, ref: RunRef, stream: str, until: int | None) -> Columns:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from .. import query

    table: pa.Table = query.history(cache, ref, stream=stream)
    if until is not None:
        table = table.filter(pc.less_equal(table.column("step"), until))
    key = table.column("key").combine_chunks().dictionary_encode()
    key = key.combine_chunks() if hasattr(key, "combine_chunks") else key
    code = key.indices.to_numpy().astype(np.int32)
    text = table.column("value_json").combine_chunks()
    return Columns(
        key.dictionary.to_pylist(),
        code,
        table.column("step").to_numpy(),
        table.column("value").to_numpy().astype(np.float64),
        table.column("kind").to_numpy(),
        None if text.null_count == len(text) else text.cast(pa.large_string()),
        int(np.bincount(code).max()) if len(code) else 0,
    )


def _describe(cache: Cache, whole: Cache, ref: RunRef) -> None:
    """What is known of the run besides its rows, as it is."""
    with catalog.translated(cache.folder):
        one = "SELECT * FROM runs WHERE entity = ? AND project = ? AND run_id = ?"
        found = dict(cache.con.execute(one, _name(ref)).fetchone())
    own = ("run", "generation", "revision", "rows", "last_step")
    values = {name: value for name, value in found.items() if name not in own}
    with catalog.translated(whole.folder), catalog.transaction(whole.con):
        whole.con.execute(
            f"UPDATE runs SET {', '.join(f'{name} = ?' for name in values)} "
            "WHERE entity = ? AND project = ? AND run_id = ?",
            (*values.values(), *_name(ref)),
        )
    if (checked := cache.checked_at(ref)) is not None:
        whole.checked([ref], checked)


def _name(ref: RunRef) -> tuple[str, str, str]:
    return ref.entity, ref.project, ref.run_id
