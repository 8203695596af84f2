"""Fetch what is new of one run: its record and files, rows, samples of the machine and console lines.

what the listing says, what the cache has -> one question -> its answer taken apart -> what else there is to ask
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...errors import ServerError
from ...model import Columns, FileRecord, Fingerprint, RunRef
from ..keys import Keys
from .client import FILES_A_PAGE, LINES_A_PAGE, Api
from .gather import Anew, Gathering, Had
from .nodes import Node
from .pages import PAGE
from .record import fingerprint
from .streams import EVENTS, State, all_files, new_events, new_lines


@dataclass(frozen=True, slots=True)
class SoFar:
    """What the cache has of a run."""

    history: Had = field(default_factory=Had)
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of its keys
    state: State = field(default_factory=State)


@dataclass(slots=True)
class Fetched:
    """What came."""

    node: Node
    now: Fingerprint  # noted before the rows were fetched
    whole: bool  # the rows replace those in the cache
    keys: Keys
    state: State
    history: Gathering
    system: Sequence[Columns] = ()
    console: Sequence[Columns] = ()
    files: list[FileRecord] | None = None  # None: refused
    refused: list[str] = field(default_factory=list)  # what did not come besides rows, and why
    notes: list[str] = field(default_factory=list)


def fetch(api: Api, ref: RunRef, listed: Fingerprint, so_far: SoFar, folder: Path, *, whole: bool = False) -> Fetched:
    """Fetch what is new of a run; `folder` takes what is downloaded on the way, and must stay.

    Raises NotFound, or what Api raises. A part besides the rows that the server refuses is left out.
    """
    try:
        return _fetch(api, ref, listed, SoFar() if whole else so_far, folder, whole=whole)
    except Anew:
        return _fetch(api, ref, listed, SoFar(), folder, whole=True)


def _fetch(api: Api, ref: RunRef, listed: Fingerprint, so_far: SoFar, folder: Path, *, whole: bool) -> Fetched:
    had, state = so_far.history, replace(so_far.state)
    first = had.last_step or 0
    node = api.run(
        ref,
        _parts(listed, so_far),
        minStep=first,
        maxStep=2**31 - 1 if first < 2**30 else 2**53,  # within 32 bits if need be, which no server refuses
        pageSize=PAGE,
        samples=EVENTS,
        first=LINES_A_PAGE,
        after=state.after,
        fileLimit=FILES_A_PAGE,
    )
    now = fingerprint(node)
    less = had.exact and (now.lines < had.rows or had.last_step is None)  # without a value no row can be told
    if had.rows and (less or now.created_at[:19] != listed.created_at[:19]):
        raise Anew  # it was made again, or cut, since it was listed
    errors: dict[str, ServerError] = node.get("errors", {})
    keys = Keys(so_far.paths)
    got = Fetched(node, now, whole, keys, state, Gathering(api, ref, node, had, keys, folder))
    got.refused = [f"{part}: {error}" for part, error in errors.items() if part not in ("page", "exports")]
    if node.get("files") is not None:
        got.files = all_files(api, ref, node["files"])
        state.files = True
    if "events" in node:
        got.system, left = new_events(node, now, state, keys)
        if left:
            got.notes.append(f"the server leaves out {left:,} of {now.events:,} samples of machine metrics")
    if node.get("logLines") is not None:
        got.console = new_lines(api, ref, node["logLines"], now, state)
    got.history.begin()
    return got


def _parts(listed: Fingerprint, so_far: SoFar) -> set[str]:
    """What to ask for in the one question."""
    had, state = so_far.history, so_far.state
    grown = listed.lines - had.rows
    parts = {"record", "files"}
    if had.exact and had.last_step is not None and 0 <= grown < PAGE:
        parts.add("page")  # even if there is nothing new: is the last row still there?
    elif grown > 0:
        parts.add("exports")
        if grown < PAGE and not had.rows:
            parts.add("page")  # all there is
    if had.exact and state.lacks_events(listed):
        parts.add("events")
    if had.exact and state.lacks_lines(listed):
        parts.add("console")
    return parts
