"""What a run has besides its history: samples of the machine, console lines, files; and how far they have been read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from ...model import Columns, FileRecord, Fingerprint, RunRef
from ..keys import Keys
from .client import Api
from .nodes import Node, next_cursor, nodes
from .record import files as file_records
from .record import number as counted
from .record import unix
from .rows import ConsoleLine, console_columns, event_columns

EVENTS = 10_000  # samples of the machine that a server gives at the most
MANY = 2000  # samples that are not all asked for again because of a few new ones


@dataclass(slots=True)
class State:
    """How far the streams besides the history have been read; stored with the run."""

    events: int = 0  # samples of the machine seen, of those the server counts
    events_until: float | None = None  # unix seconds of the last one
    samples: int = 0  # rows of the stream `system`
    lines: int = 0  # the number of the console line to go on with
    after: str | None = None  # the cursor that leads to the page which that line is on
    files: bool = False  # whether the files were ever listed

    @classmethod
    def load(cls, text: str) -> State:
        return cls(**{name: value for name, value in json.loads(text).items() if name in cls.__slots__})

    def dump(self) -> str:
        return json.dumps(asdict(self))

    def lacks_events(self, now: Fingerprint) -> bool:
        """Whether to ask for samples. All of them come each time, so of many it takes more than a few new ones."""
        if now.events is None:
            return True
        return now.events != self.events and (now.events < MANY or now.ended or now.events > self.events * 1.05)

    def lacks_lines(self, now: Fingerprint) -> bool:
        return now.console is None or now.console != self.lines


def new_events(node: Node, now: Fingerprint, state: State, keys: Keys) -> tuple[list[Columns], int]:
    """The samples of the machine since the last time, and how many of them the server left out."""
    events, counted = node["events"] or [], now.events
    if len(events) >= counted if counted is not None else len(events) < EVENTS:
        new, left = events[state.events :], 0
    else:  # some of all, evenly spread: what comes now and then is put together
        until = state.events_until
        new = [one for one in events if until is None or (_time(one) or 0.0) > until]
        left = max(0, (counted or 0) - state.events - len(new))
    state.events = max(len(events), counted or 0)
    if not new:
        return [], left
    columns = event_columns(new, state.samples, keys)
    state.samples += len(new)
    state.events_until = max((one for one in map(_time, new) if one is not None), default=state.events_until)
    return [columns], left


def _time(event: Node) -> float | None:
    time = event.get("_timestamp")
    return float(time) if isinstance(time, (int, float)) else None


def new_lines(api: Api, ref: RunRef, page: Node, now: Fingerprint, state: State) -> list[Columns]:
    """The console lines since the last time, from a page and those after it.

    Of a run that goes on, the last line may still be rewritten, and is left for the next time.
    """
    number = first = state.lines
    found: list[ConsoleLine] = []
    while True:
        for node in nodes(page):
            its = counted(node.get("number"))
            its = number if its is None else its
            if its >= number:
                found.append(_line(node))
                number = its + 1
        after = next_cursor(page)
        if not after or after == state.after:
            break
        state.after = after
        page = api.console(ref, state.after)
    if found and not now.ended:
        found.pop()
        number -= 1
    state.lines = number
    return [console_columns(found, first)] if found else []


def _line(node: Node) -> ConsoleLine:
    return ConsoleLine(
        node.get("line") or "", unix(node.get("timestamp")), node.get("level") or "", node.get("label") or ""
    )


def all_files(api: Api, ref: RunRef, page: Node) -> list[FileRecord]:
    """The files of a run, from a page and those after it."""
    found, after = nodes(page), next_cursor(page)
    if after is not None:
        found += api.more_files(ref, after)
    return list(file_records(found).values())
