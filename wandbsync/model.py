"""The words everything else is written in; no input or output happens here.

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
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Kind(IntEnum):
    """What a row's value is; stored as uint8."""

    FLOAT = 0
    INT = 1
    BOOL = 2
    NULL = 3
    JSON = 4
    BIGINT = 5
    LINE = 6


HISTORY = "history"
SYSTEM = "system"
CONSOLE = "console"
STREAMS = (HISTORY, SYSTEM, CONSOLE)

EXACT_INT = 2**53  # the largest n for which every integer up to n is a float64

STATES = ("running", "finished", "failed", "crashed", "killed", "pending", "preempting", "preempted")


@dataclass(frozen=True, slots=True, order=True)
class RunRef:
    """The name of one run."""

    entity: str
    project: str
    run_id: str

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.run_id}"
