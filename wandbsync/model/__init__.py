"""The words everything else is written in; no input or output happens here.

    run  a run's name, record and the table of its fields        project  projects and sweeps

A *run* is named by entity, project and run_id. What it logged is kept as *streams* of long rows, one row per value:
`history` (what `run.log` was given), `system` (machine metrics) and `console` (what the program printed).
A row is (key, step, value, kind, value_json):

    kind      value                       value_json
    FLOAT     the float64, NaN and infinities included
    INT       the integer, |n| <= 2**53
    BOOL      0.0 or 1.0
    NULL      null: None was logged
    JSON      null                        the JSON text: strings, lists, media, histograms
    BIGINT    the nearest float64         the digits of an integer beyond 2**53
    LINE      unix seconds or null        a line of console text, as it stands on the screen

so that every logged value can be given back exactly as it was logged, and numbers can be added up without parsing.
In `system` and `console` the step is the number of the row or line, counted from 0. A line's key is stdout or stderr,
with the label of the process that printed it behind a colon, if it has one: `stderr:rank-1`.

A *key* is shown as W&B shows it, nested names joined by dots: `{"val": {"acc": 1}}` is `val.acc`, and so is a literal
"val.acc". Should one run use both, the second to come is shown as its path instead: `["val.acc"]`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from .project import ProjectRecord, SweepRecord
from .run import FIELDS, Field, FileRecord, RunRecord, RunRef, SummaryRules

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


__all__ = [
    "CONSOLE",
    "EXACT_INT",
    "FIELDS",
    "GOING_ON",
    "HISTORY",
    "NUMBERS",
    "STATES",
    "STREAMS",
    "SYSTEM",
    "Columns",
    "Field",
    "FileRecord",
    "Fingerprint",
    "Kind",
    "Pace",
    "ProjectRecord",
    "RunRecord",
    "RunRef",
    "SummaryRules",
    "SweepRecord",
    "logged",
    "show_path",
    "spell_path",
]  # fmt: skip


class Kind(IntEnum):
    """What a row's value is; stored as uint8."""

    FLOAT = 0
    INT = 1
    BOOL = 2
    NULL = 3
    JSON = 4
    BIGINT = 5
    LINE = 6


NUMBERS = (Kind.FLOAT, Kind.INT, Kind.BOOL, Kind.BIGINT)  # the kinds whose value is one


HISTORY = "history"
SYSTEM = "system"
CONSOLE = "console"
STREAMS = (HISTORY, SYSTEM, CONSOLE)

FIRST_TIME, LAST_TIME = -62135596800.0, 253402300799.0  # of the years 1 to 9999, in unix seconds
EXACT_INT = 2**53  # the largest n for which every integer up to n is a float64

STATES = ("running", "finished", "failed", "crashed", "killed", "pending", "preempting", "preempted")
GOING_ON = ("running", "pending", "preempting")


@dataclass(frozen=True, slots=True)
class Columns:
    """Long rows of one stream, column by column, in the order they were logged; all arrays have the same length n."""

    names: Sequence[str]  # the keys
    key: NDArray[np.int32]  # index into `names`
    step: NDArray[np.int64]
    value: NDArray[np.float64]  # NaN where it is to be null
    kind: NDArray[np.uint8]
    text: pa.LargeStringArray | None  # value_json; None when all are null
    rows: int  # how many log calls (history), samples (system) or lines (console) these values come from

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a server's listing tells of a run for nothing: it moves when the run does. Times are the server's text."""

    state: str
    created_at: str
    heartbeat_at: str | None
    lines: int  # rows of its history
    events: int | None = None  # samples of machine metrics; None: the server does not say
    console: int | None = None  # lines printed
    described: str = ""  # a digest of the fields that people edit

    @property
    def ended(self) -> bool:
        return self.state not in GOING_ON


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the daemon asks for a project, in seconds."""

    poll: float = 60.0  # while runs of it go on: for what can have changed
    settled: float = 1800.0  # at the longest, where nothing has changed for long
    sweep: float = 21600.0  # for everything: what was deleted, edited or uploaded late


def is_time(seconds: Any) -> Any:
    """Whether unix seconds (a number, or each of an array) are a time: one of the years 1 to 9999, not NaN."""
    return (seconds >= FIRST_TIME) & (seconds <= LAST_TIME)


def logged(kind: int, value: float | None, text: str | None) -> Any:
    """The Python value that a row stands for, exactly as it was logged."""
    if kind == Kind.FLOAT:
        return value
    if kind == Kind.INT:
        return int(value)  # type: ignore[arg-type]
    if kind == Kind.BOOL:
        return bool(value)
    if kind == Kind.NULL or text is None:
        return None
    if kind == Kind.LINE:
        return text
    return json.loads(text)  # JSON, and BIGINT's digits


def show_path(path: Sequence[str]) -> str:
    """A key as people see it: the nested names joined by dots."""
    return path[0] if len(path) == 1 else ".".join(path)


def spell_path(path: Sequence[str]) -> str:
    """A key as its JSON path, for the second of two paths that look alike."""
    return json.dumps(list(path), ensure_ascii=False, separators=(",", ":"))
