"""One batch of a project's runs: a row of commits, `runs` last; why none counts twice is told in the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from ..cache import Cache
from ..cache.stamps import checked
from ..errors import WandbsyncError
from ..model import STREAMS
from . import here, plan, records, tables, there
from .delta import Lake, next_number
from .flow import Flow, Moved
from .here import Project, Stream
from .plan import Action, Do, Reach


@dataclass(slots=True)
class Carrier:
    """Carries batches of a project into the lake."""

    cache: Cache
    lake: Lake
    key: Project
    writer: str
    now: Callable[[], float]
    check: Callable[[], None]
    values: int = 0  # written so far

    def tidy(self, standing: there.Standing, planned: AbstractSet[str]) -> None:
        """Remove what a batch that did not come to its end has written of runs that the cache has no more."""
        for table in there.DATA:
            if standing.numbers[table] <= standing.settled:
                continue
            strays = self.lake.run_ids(table, there.of(self.key)) - standing.there.runs.keys() - planned
            if strays:
                number = next_number(max(*standing.numbers.values(), standing.settled))
                where = there.of(self.key, run_id=sorted(strays))
                self._commit(table, number, standing, self.lake.replace(table, None, where))

    def carry(self, batch: Sequence[Action], standing: there.Standing, *, last: bool) -> None:
        """Publish a batch. Raises Overtaken or Moved: plan again; nothing of it counts until its last commit.

        `last`: with it, all that an interrupted batch may have left is dealt with.
        """
        moment = here.moment(self.cache, [action.run for action in batch if action.run is not None])
        wanted = {action.run_id: action for action in batch if action.run is not None}
        for run_id, action in wanted.items():
            now = moment.runs.get(run_id)
            if now is None or now.generation != action.generation:
                raise Moved
            if now.evicted and (action.do is not Do.DESCRIBE) and action.values:
                raise Moved
            if action.do is Do.DESCRIBE and not now.evicted and _values(now.values) != _values(action.after):
                raise Moved
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
        if not ids or not (rows or standing.numbers[name]):
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
        try:
            paths = checked(self.cache, moment.segments[name])
        except FileNotFoundError:  # merged and swept meanwhile
            raise Moved from None
        flow = Flow(self.key, name, streams, paths, self.check)
        small = sum(one.count - one.after.values for one in streams) <= plan.BATCH_VALUES or len(streams) > 1
        try:
            data = flow.gathered() if small else flow.streamed
            if replaced:
                write = self.lake.replace(name, data, self._where(replaced, moved, standing))
            else:
                write = self.lake.append(name, data)
            self._commit(name, number, standing, write)
        except FileNotFoundError:
            raise Moved from None
        except WandbsyncError:
            if isinstance(flow.broken, FileNotFoundError):
                raise Moved from None
            if flow.broken is not None:
                raise flow.broken from None
            raise
        for one, reach in zip(streams, flow.reaches, strict=True):
            reaches[one.run_id][name] = reach
        self.values += sum(reach.values - one.after.values for one, reach in zip(streams, flow.reaches, strict=True))


def _values(of: Mapping[str, int] | Mapping[str, Reach]) -> int:
    return sum(one.values if isinstance(one, Reach) else one for one in of.values())
