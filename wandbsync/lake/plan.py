"""What changed since the last publication -> small actions, which print as sentences. Pure.

Here is what the cache has, there what the lake says it has. A run whose rows were only added to grows; one whose rows
are others is replaced. What a batch that did not come to its end may have added is not known: it is replaced too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

BUCKET_RUNS = 256
BATCH_RUNS = 256
BATCH_VALUES = 1_000_000  # values of several runs that are held in memory; one larger run is streamed


@dataclass(frozen=True, slots=True)
class RunHere:
    """A run as the cache has it."""

    run: int  # the catalog's number
    run_id: str
    revision: int
    generation: int
    values: Mapping[str, int] = field(default_factory=dict)  # stream -> how many
    evicted: bool = False  # its rows were removed to save space


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a stream of a run is published."""

    values: int
    last_step: int | None


NOTHING = Reach(0, None)


@dataclass(frozen=True, slots=True)
class RunThere:
    """A run as the lake has it."""

    bucket: str
    writer: str
    revision: int
    generation: int
    published: Mapping[str, Reach] = field(default_factory=dict)
    gone: bool = False


@dataclass(frozen=True, slots=True)
class There:
    """A project as the lake has it."""

    runs: Mapping[str, RunThere] = field(default_factory=dict)
    settled: bool = True  # the last batch came to its end


class Do(Enum):
    ADD = "add"
    GROW = "add to"
    DESCRIBE = "describe"
    REPLACE = "replace"
    MARK = "mark"


@dataclass(frozen=True, slots=True)
class Action:
    """One run to be published."""

    do: Do
    project: str  # as people see it
    run_id: str
    bucket: str
    run: int | None = None  # the catalog's number; None: it is not in the cache
    generation: int = -1
    values: int = 0  # to be written, about
    after: Mapping[str, Reach] = field(default_factory=dict)  # what is there already
    why: str = ""
    kept: int | None = None  # the generation of what is there, if that stays

    def __str__(self) -> str:
        what = f"{self.do.value} {self.project}/{self.run_id}"
        if self.do is Do.MARK:
            return f"{what} as gone"
        if self.do is Do.DESCRIBE:
            return f"{what} again ({self.why})"
        return f"{what}: {self.values:,} values ({self.why})"


def plan(
    project: str, here: Iterable[RunHere], there: There, *, writer: str, again: frozenset[str] = frozenset()
) -> list[Action]:
    """What is to be done for a project. `again`: runs whose rows turned out not to be what the lake says."""
    known = len(there.runs)
    actions = []
    seen = set()
    for one in here:
        seen.add(one.run_id)
        old = there.runs.get(one.run_id)
        bucket = bucket_of(known) if old is None else old.bucket
        known += old is None
        action = _action(project, one, old, bucket, settled=there.settled, writer=writer, again=one.run_id in again)
        if action is not None:
            actions.append(action)
    actions += [
        Action(Do.MARK, project, run_id, old.bucket)
        for run_id, old in there.runs.items()
        if run_id not in seen and old.writer == writer and not old.gone
    ]
    return actions


def bucket_of(number: int) -> str:
    """The bucket of the run of a project that was published as the n-th, from 0."""
    return f"{number // BUCKET_RUNS:04d}"


def _action(
    project: str, one: RunHere, old: RunThere | None, bucket: str, *, settled: bool, writer: str, again: bool
) -> Action | None:
    def do(
        what: Do, why: str, values: int = sum(one.values.values()), after: Mapping[str, Reach] | None = None
    ) -> Action:
        kept = old.generation if old is not None and what is Do.DESCRIBE else None
        return Action(what, project, one.run_id, bucket, one.run, one.generation, values, after or {}, why, kept)

    if old is not None and old.writer == writer and old.revision == one.revision and not old.gone and not again:
        return None
    if one.evicted and old is not None:
        return do(Do.DESCRIBE, "its rows are not in the cache", 0, old.published)
    if one.evicted:
        return do(Do.ADD, "new, its rows are not in the cache", 0)
    if old is None:
        return do(Do.ADD, "new") if settled else do(Do.REPLACE, "a publication did not come to its end")
    if old.writer != writer:
        return do(Do.REPLACE, "another cache published it")
    if old.gone:
        return do(Do.REPLACE, "it is back")
    if old.generation != one.generation:
        return do(Do.REPLACE, "its rows are others")
    if again:
        return do(Do.REPLACE, "rows came in between")
    grown = sum(one.values.values()) - sum(reach.values for reach in old.published.values())
    if grown == 0:
        return do(Do.DESCRIBE, "its record changed", 0, old.published)
    if not settled:
        return do(Do.REPLACE, "a publication did not come to its end")
    return do(Do.GROW, "it grew", grown, old.published)


def batches(actions: Sequence[Action]) -> Iterator[list[Action]]:
    """Actions that are carried out together: of one kind, and not too much for memory."""
    for replaces in (False, True):
        batch: list[Action] = []
        values = 0
        for action in actions:
            if (action.do is Do.REPLACE) is not replaces:
                continue
            if batch and (len(batch) == BATCH_RUNS or values + action.values > BATCH_VALUES):
                yield batch
                batch, values = [], 0
            batch.append(action)
            values += action.values
        if batch:
            yield batch
