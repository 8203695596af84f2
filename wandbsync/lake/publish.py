"""Publish a cache to a lake: claim its projects, plan each, and carry the plan out batch by batch.

The order of the commits of a batch, and why none counts twice, is told in the package's docstring.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..cache import Cache
from ..errors import WandbsyncError
from ..model import STREAMS
from . import here, plan, records, tables, there
from .address import Address
from .delta import Lake, Overtaken, next_number
from .here import Project, ProjectHere, Stream
from .plan import Action, Do, Reach

PATIENCE = 8  # times that a project is planned anew because others write or the cache moves on


@dataclass(slots=True)
class Published:
    """What a publication found and did."""

    address: str
    planned: list[Action] = field(default_factory=list)
    projects: int = 0  # that were looked at
    runs: int = 0
    values: int = 0
    commits: int = 0
    conflicts: int = 0
    left: list[str] = field(default_factory=list)  # projects that another cache publishes, and which
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    dry_run: bool = False


def publish(
    cache: Cache,
    address: Address,
    *,
    machine: str,
    dry_run: bool = False,
    take_over: bool = False,
    full: bool = False,
    now: Callable[[], float] = time.time,
    progress: Callable[[int, int], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Published:
    """Bring a lake up to date with a cache. `machine` names it to people; `check` is called on the way, and may raise.

    Projects of which nothing has changed since the last time are not looked at, unless `full` is given. Raises
    WandbsyncError if the lake cannot be reached; what is wrong with one project is in the report.
    """
    began = time.perf_counter()
    lake = Lake(address)
    report = Published(str(address), dry_run=dry_run)
    writer = here.identity(cache)
    memory = _Memory(cache, lake)
    mine, claimed = _claim(lake, here.projects(cache, machine), report, writer=writer, machine=machine,
                           take_over=take_over, dry_run=dry_run, now=now())  # fmt: skip
    for project in mine:
        check()
        if not full and project.key not in claimed and memory.knows(project):
            continue
        report.projects += 1
        try:
            _Project(cache, lake, project, report, writer, now, progress, check).publish()
        except WandbsyncError as error:
            if error.exit_code == 130:
                raise
            report.problems.append(f"{'/'.join(project.key[1:])}: {error.line()}")
        else:
            if not dry_run:
                memory.note(project)
    report.commits, report.conflicts = lake.commits, lake.conflicts
    report.seconds = time.perf_counter() - began
    return report


def _claim(
    lake: Lake, found: Sequence[ProjectHere], report: Published, *, writer: str, machine: str, take_over: bool,
    dry_run: bool, now: float,
) -> tuple[list[ProjectHere], set[Project]]:  # fmt: skip
    """The projects that are this cache's to publish, claimed in the lake, with those it has no more.

    And which of them were not its own before.
    """
    for attempt in range(PATIENCE):
        number, known = there.owners(lake)
        mine, rows, changed = [], {project: row for project, (_, row) in known.items()}, False
        claimed: set[Project] = set()
        report.left.clear()
        for project in found:
            owner, old = known.get(project.key, (None, None))
            if owner is not None and not (take_over or owner.lets(writer, now)):
                ago = max(0, int((now - owner.heard_at) // 60))
                report.left.append(f"{'/'.join(project.key[1:])} is published by {owner.name}, heard of {ago}m ago")
                continue
            mine.append(project)
            if owner is None or owner.writer != writer:
                claimed.add(project.key)
            row = records.project(project, writer, machine, now)
            if project.key in claimed or owner is None or now - owner.heard_at > there.HEARD or not _same(row, old):
                rows[project.key], changed = row, True
        here_now = {project.key for project in found}
        mine += [
            ProjectHere(key[0], row, 0, -1)
            for key, (owner, row) in known.items()
            if owner.writer == writer and key not in here_now
        ]
        if dry_run or not changed:
            return mine, claimed
        data = functools.partial(records.table, "projects", list(rows.values()))
        try:
            lake.commit("projects", there.OWNERS, next_number(number), number,
                        lake.replace("projects", data, None))  # fmt: skip
            return mine, claimed
        except Overtaken:
            lake.pause(attempt)
    raise WandbsyncError(f"too many caches write to {lake.address} at once", hint="try again later")


def _same(new: dict[str, Any], old: dict[str, Any] | None) -> bool:
    """Whether a project is as it was, but for when its owner was heard of."""
    return old is not None and all(new[name] == old.get(name) for name in new if name != "heard_at")


class _Memory:
    """What was published last, so that what has not changed need not be looked at: a hint, to be lost at any time."""

    def __init__(self, cache: Cache, lake: Lake) -> None:
        import hashlib

        name = hashlib.sha256(str(lake.address).encode()).hexdigest()[:16]
        self.path = cache.folder / "lake" / f"{name}.json"
        table = lake.table("runs")
        self.lake = "" if table is None else table.metadata().id  # of another lake at this address, nothing is known
        self._runs = lake
        try:
            known = json.loads(self.path.read_text())
        except (OSError, ValueError):
            known = {}
        self.known: dict[str, Any] = known["projects"] if known.get("lake") == self.lake else {}

    def knows(self, project: ProjectHere) -> bool:
        return self.known.get(json.dumps(project.key)) == [project.newest, project.runs]

    def note(self, project: ProjectHere) -> None:
        table = self._runs.table("runs")
        if table is None:
            return
        self.lake = table.metadata().id
        self.known[json.dumps(project.key)] = [project.newest, project.runs]
        beside = self.path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk costs a look
            beside.write_text(json.dumps({"lake": self.lake, "projects": self.known}))
            beside.replace(self.path)


class _Moved(Exception):
    """A signal within this file: the cache has moved on since the plan, or these runs are not as the lake says."""

    def __init__(self, runs: Sequence[str] = ()) -> None:
        self.runs = frozenset(runs)


@dataclass(slots=True)
class _Project:
    """The publication of one project."""

    cache: Cache
    lake: Lake
    project: ProjectHere
    report: Published
    writer: str
    now: Callable[[], float]
    progress: Callable[[int, int], None] | None
    check: Callable[[], None]

    @property
    def key(self) -> Project:
        return self.project.key

    def publish(self) -> None:
        """All of it. Raises WandbsyncError."""
        again: frozenset[str] = frozenset()
        told = 0
        for attempt in range(PATIENCE):
            standing = there.standing(self.lake, self.key)
            found = here.runs(self.cache, *self.key[1:]) if self.project.runs else []
            actions = plan.plan("/".join(self.key[1:]), found, standing.there, writer=self.writer, again=again)
            if attempt == 0:
                self.report.planned += actions
            if self.report.dry_run:
                return
            batches = list(plan.batches(actions))
            total = sum(len(batch) for batch in batches)
            try:
                if not standing.there.settled:
                    standing = self._tidy(standing, {action.run_id for action in actions})
                for i, batch in enumerate(batches):
                    self.check()
                    self._carry_out(batch, standing, last=i == len(batches) - 1)
                    told += len(batch)
                    if self.progress:
                        self.progress(told, max(total, told))
                    if i < len(batches) - 1:
                        standing = self._still(standing)
                return
            except _Moved as moved:
                again |= moved.runs
            except Overtaken:
                self.lake.pause(attempt)
                if not self._mine():
                    self.report.left.append(f"{'/'.join(self.key[1:])} was taken over by another cache")
                    return
        raise WandbsyncError("it keeps changing", hint="the next publication goes on")

    def _tidy(self, standing: there.Standing, planned: set[str]) -> there.Standing:
        """Remove what a batch that did not come to its end has written of runs that the cache has no more."""
        ahead = [table for table in there.DATA if standing.numbers[table] > standing.settled]
        for table in ahead:
            strays = self.lake.run_ids(table, there.of(self.key)) - standing.there.runs.keys() - planned
            if strays:
                number = next_number(max(*standing.numbers.values(), standing.settled))
                where = there.of(self.key, run_id=sorted(strays))
                self._commit(table, number, standing, self.lake.replace(table, None, where))
        return self._still(standing)

    def _mine(self) -> bool:
        owner, _ = there.owners(self.lake)[1].get(self.key, (None, None))
        return owner is not None and owner.writer == self.writer

    def _still(self, old: there.Standing) -> there.Standing:
        """How the tables stand after a batch; the runs are as they were planned with."""
        name = there.app(self.key)
        if not self._mine():
            raise Overtaken
        numbers = {table: self.lake.version(table, name) for table in (*there.DATA, "runs")}
        return there.Standing(old.there, numbers, self.lake.version("runs", there.settled(self.key)))

    def _carry_out(self, batch: Sequence[Action], standing: there.Standing, *, last: bool) -> None:
        moment = here.moment(self.cache, [action.run for action in batch if action.run is not None])
        wanted = {action.run_id: action for action in batch if action.run is not None}
        for run_id, action in wanted.items():
            now = moment.runs.get(run_id)
            if now is None or now.generation != action.generation:
                raise _Moved
            if now.evicted and (action.do is not Do.DESCRIBE) and action.values:
                raise _Moved
            if action.do is Do.DESCRIBE and not now.evicted and _values(now.values) != _values(action.after):
                raise _Moved
        number = next_number(max(*standing.numbers.values(), standing.settled))
        reaches: dict[str, dict[str, Reach]] = {
            run_id: dict(action.after) if action.do in (Do.GROW, Do.DESCRIBE) else {}
            for run_id, action in wanted.items()
        }
        for name in STREAMS:
            self._rows(name, batch, moment, number, standing, reaches)
        settled = standing.there.settled
        for name in ("metrics", "files"):
            rows = records.rows(name, self.key, moment, wanted)
            self._replace(name, rows, batch, number, standing, only=list(wanted))
        rows = records.runs(self.key, moment, wanted, reaches, writer=self.writer, now=self.now())
        rows += self._marked([action for action in batch if action.do is Do.MARK])
        done = [(there.settled(self.key), number)] if settled or last else []
        self._replace("runs", rows, batch, number, standing, also=done)
        self.report.runs += len(batch)

    def _marked(self, actions: Sequence[Action]) -> list[dict[str, Any]]:
        """The rows of runs that the cache has no more, marked so."""
        if not actions:
            return []
        ids = [action.run_id for action in actions]
        buckets = sorted({action.bucket for action in actions})
        where = there.of(self.key, bucket=buckets, run_id=ids)
        old = self.lake.scan("runs", tables.schema("runs").names, where).to_pylist()
        return [row | {"gone_at": there.moment(self.now())} for row in old]

    def _commit(self, name: str, number: int, standing: there.Standing, write: Any, **more: Any) -> None:
        self.lake.commit(name, there.app(self.key), number, standing.numbers[name], write, **more)

    def _replace(
        self, name: str, rows: Sequence[dict[str, Any]], batch: Sequence[Action], number: int,
        standing: there.Standing, *, only: Sequence[str] | None = None, also: Sequence[tuple[str, int]] = (),
    ) -> None:  # fmt: skip
        """Put the records of the runs of a batch in the place of what is there."""
        fresh = standing.there.settled and all(action.run_id not in standing.there.runs for action in batch)
        data = records.table(name, rows)
        if fresh:
            if rows or name == "runs":
                self._commit(name, number, standing, self.lake.append(name, lambda: data), also=also)
            return
        ids = [action.run_id for action in batch] if only is None else list(only)
        if not ids:
            return
        self._commit(
            name, number, standing,
            self.lake.replace(name, (lambda: data) if rows else None, self._where(ids, batch, standing)), also=also,
        )  # fmt: skip

    def _where(self, ids: Sequence[str], batch: Sequence[Action], standing: there.Standing) -> str:
        """The rows of these runs; which bucket an interrupted batch has put them in is not known."""
        if not standing.there.settled:
            return there.of(self.key, run_id=ids)
        return there.of(self.key, bucket=sorted({action.bucket for action in batch}), run_id=ids)

    def _rows(
        self, name: str, batch: Sequence[Action], moment: here.Moment, number: int, standing: there.Standing,
        reaches: dict[str, dict[str, Reach]],
    ) -> None:  # fmt: skip
        """Publish the rows of one stream of a batch's runs."""
        moved = [action for action in batch if action.do in (Do.ADD, Do.GROW, Do.REPLACE)]
        replaced = [action.run_id for action in moved if action.do is Do.REPLACE]
        streams = [
            Stream(
                action.run_id,
                action.bucket,
                moment.numbers[action.run_id, name],
                moment.runs[action.run_id].values[name],
                action.after.get(name, plan.NOTHING) if action.do is Do.GROW else plan.NOTHING,
            )
            for action in moved
            if moment.runs[action.run_id].values.get(name) and not moment.runs[action.run_id].evicted
        ]
        streams = [one for one in streams if one.count != one.after.values]
        if not streams:
            if replaced and standing.numbers[name]:
                where = self._where(replaced, moved, standing)
                self._commit(name, number, standing, self.lake.replace(name, None, where))
            return
        flow = _Flow(self.key, name, streams, moment.paths[name], self.check)
        small = sum(one.count - one.after.values for one in streams) <= plan.BATCH_VALUES or len(streams) > 1
        try:
            data = flow.gathered() if small else flow.streamed
            if replaced:
                write = self.lake.replace(name, data, self._where(replaced, moved, standing))
            else:
                write = self.lake.append(name, data)
            self._commit(name, number, standing, write)
        except FileNotFoundError:  # merged and swept meanwhile
            raise _Moved from None
        except WandbsyncError:
            if flow.broken is not None:
                raise flow.broken from None
            raise
        for one, reach in zip(streams, flow.reaches, strict=True):
            reaches[one.run_id][name] = reach
        self.report.values += sum(
            reach.values - one.after.values for one, reach in zip(streams, flow.reaches, strict=True)
        )


class _Flow:
    """The rows of some streams on their way, counted against what the catalog says."""

    def __init__(
        self, project: Project, name: str, streams: Sequence[Stream], paths: Any, check: Callable[[], None]
    ) -> None:
        self.project, self.name, self.streams, self.paths, self.check = project, name, streams, paths, check
        self.schema = tables.schema(name)
        self.reaches: list[Reach] = []
        self.broken: BaseException | None = None  # what went wrong inside of delta-rs

    def _blocks(self) -> Iterator[tuple[Any, Any]]:
        import numpy as np

        counts = np.array([one.after.values for one in self.streams], np.int64)
        lasts = np.full(len(self.streams), np.iinfo(np.int64).min)
        for i, one in enumerate(self.streams):
            lasts[i] = lasts[i] if one.after.last_step is None else one.after.last_step
        for block, index in here.blocks(self.paths, self.streams):
            self.check()
            counts += np.bincount(index, minlength=len(self.streams))
            np.maximum.at(lasts, index, block.step)
            yield block, index
        wrong = [one.run_id for one, count in zip(self.streams, counts.tolist(), strict=True) if count != one.count]
        if wrong:
            raise _Moved(wrong)
        self.reaches = [Reach(one.count, last) for one, last in zip(self.streams, lasts.tolist(), strict=True)]

    def gathered(self) -> Callable[[], Any]:
        """All rows in memory, sorted by run, key and step."""
        import numpy as np
        import pyarrow as pa

        parts = [here.arrow(self.project, self.streams, block, index, self.schema) for block, index in self._blocks()]
        table = pa.concat_tables(parts).unify_dictionaries() if parts else self.schema.empty_table()
        if len(self.streams) > 1 and parts:
            order = np.argsort(_codes(table.column("run_id")), kind="stable")
            table = table.take(pa.array(order))
        return lambda: table

    def streamed(self) -> Any:
        """The same of one run, as it is asked for."""
        import pyarrow as pa

        first: list[pa.RecordBatch] = []
        flow = self._batches()
        first.append(next(flow))

        def whole() -> Iterator[pa.RecordBatch]:
            yield first.pop()
            yield from flow

        return pa.RecordBatchReader.from_batches(first[0].schema, whole())

    def _batches(self) -> Iterator[Any]:
        try:
            for block, index in self._blocks():
                yield from here.arrow(self.project, self.streams, block, index, self.schema).to_batches(
                    max_chunksize=tables.ROW_GROUP
                )
        except BaseException as error:
            self.broken = error
            raise


def _values(of: Mapping[str, int] | Mapping[str, Reach]) -> int:
    return sum(one.values if isinstance(one, Reach) else one for one in of.values())


def _codes(column: Any) -> Any:
    """The place of each row's text among all of them, sorted."""
    import numpy as np
    import pyarrow as pa

    parts = column.chunks
    names = parts[0].dictionary.to_pylist()
    rank = np.argsort(np.argsort(np.array(names, object)))
    codes = np.concatenate([part.indices.to_numpy() for part in parts]) if parts else np.empty(0, np.int64)
    assert isinstance(column, pa.ChunkedArray)
    return rank[codes]
