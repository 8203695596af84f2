"""Fetch what is new of one run: its record and files, the rows it has since, machine metrics and console lines.

    listed, so far -> one question -> exports, pages of the live tail -> History -> counted against the server's count

Rows come from the exports where there are any, and from pages of `history` where not; which of the two has a row may
change while one asks, so what comes twice is told by its step, and what the server counts tells whether all came.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ExpiredURL, ServerError
from ...model import Columns, FileRecord, Fingerprint, RunRef
from ..keys import Keys
from .client import FILES_A_PAGE, LINES_A_PAGE, Api, Node
from .history import History, assemble
from .record import files as file_records
from .record import fingerprint, unix
from .rows import ConsoleLine, console_columns, event_columns

PAGE = 1000  # rows asked for at once; what the SDK asks for, so that every server gives as many
TAIL = 3000  # as many new rows come by pages; more are looked for in the exports first
LIVE_ROWS = 50_000  # live rows held in memory
EVENTS = 10_000  # samples of machine metrics that a server gives at the most
GAPS = 20  # pages asked for to fill gaps


@dataclass(slots=True)
class State:
    """How far the streams besides the history have been read; stored with the run."""

    events: int = 0  # samples seen, of those the server counts
    events_until: float | None = None  # unix seconds of the last one
    samples: int = 0  # rows of the stream `system`
    lines: int = 0  # console lines read
    after: str | None = None  # the cursor of the page that the last of them was on
    files: bool = False  # whether its files were ever listed

    @classmethod
    def load(cls, text: str) -> State:
        return cls(**json.loads(text))

    def dump(self) -> str:
        return json.dumps(asdict(self))


@dataclass(slots=True)
class SoFar:
    """What the cache has of a run."""

    fetched: Fingerprint | None = None  # noted before the last fetch
    rows: int = 0
    last_step: int | None = None
    stamp: float | None = None  # `_timestamp` of the row of that step
    steps: Callable[[], NDArray[np.int64]] = field(default=lambda: np.empty(0, np.int64))
    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    local: bool = False  # some of it comes from local logs, which tell more of console and machine
    state: State = field(default_factory=State)


@dataclass(slots=True)
class Fetched:
    """What came. `histories` is lazy where it is much: what follows it in this class counts when it is exhausted."""

    ref: RunRef
    node: Node
    now: Fingerprint  # noted before the rows were fetched
    whole: bool  # the rows replace those in the cache
    keys: Keys
    state: State
    histories: Iterator[History] = field(default_factory=lambda: iter(()))
    system: list[Columns] = field(default_factory=list)
    console: list[Columns] = field(default_factory=list)
    files: list[FileRecord] | None = None  # None: not asked, or refused
    rows: int = 0  # of the history, with those the cache had
    dropped: int = 0  # rows that came twice
    problems: list[str] = field(default_factory=list)  # what did not come, and why
    incomplete: str | None = None  # the same for the history


class Anew(Exception):
    """The rows in the cache are not those the server has now: fetch all of them."""


def fetch(api: Api, ref: RunRef, listed: Fingerprint, so_far: SoFar, folder: Path, *, whole: bool = False) -> Fetched:
    """Fetch what is new of a run; `folder` takes what is downloaded on the way. Raises NotFound, or what Api raises."""
    try:
        return _begun(_Fetch(api, ref, listed, SoFar() if whole else so_far, folder, whole=whole).run())
    except Anew:
        return _begun(_Fetch(api, ref, listed, SoFar(), folder, whole=True).run())


def _begun(got: Fetched) -> Fetched:
    """With its first piece at hand; that is all there is, and its count audited, unless much of it is live."""
    first = list(itertools.islice(got.histories, 2))
    got.histories = itertools.chain(first, got.histories)
    return got


class _Fetch:
    def __init__(self, api: Api, ref: RunRef, listed: Fingerprint, so_far: SoFar, folder: Path, *, whole: bool) -> None:
        self.api, self.ref, self.listed, self.so_far, self.folder, self.whole = api, ref, listed, so_far, folder, whole
        self.keys = Keys(so_far.paths)
        self.files: list[Path] = []  # downloaded exports

    def run(self) -> Fetched:
        """Ask, then take the answer apart."""
        before, state = self.so_far.fetched, self.so_far.state
        grown = self.listed.lines - self.so_far.rows
        tail = not self.whole and self.so_far.last_step is not None and not self.so_far.local and 0 < grown <= TAIL
        parts = {"record", "files"}
        if tail:
            parts.add("page")
        elif grown or self.whole:
            parts.add("exports")
        streams = not self.so_far.local
        if streams and self._events_due(before):
            parts.add("events")
        if streams and (self.listed.console is None or self.listed.console != state.lines):
            parts.add("console")
        first = self.so_far.last_step or 0
        node = self.api.run(
            self.ref,
            parts,
            minStep=first,
            maxStep=_beyond(first),
            pageSize=PAGE,
            samples=EVENTS,
            first=LINES_A_PAGE,
            after=state.after,
            fileLimit=FILES_A_PAGE,
        )
        now = fingerprint(node)
        another = now.created_at != self.listed.created_at or (now.lines < self.so_far.rows and not self.so_far.local)
        if another and not self.whole and self.so_far.rows:
            raise Anew
        got = Fetched(self.ref, node, now, self.whole, self.keys, State(**asdict(state)), rows=self.so_far.rows)
        refused: dict[str, ServerError] = node.get("errors", {})
        got.problems += [f"{part}: {error}" for part, error in refused.items()]
        rows = refused.get("page") or refused.get("exports")
        if rows is not None:
            raise rows
        self._take_files(got)
        self._take_events(got)
        self._take_console(got)
        if tail or "exports" in parts or now.lines != self.so_far.rows:
            got.histories = self._histories(got)
        return got

    # -- history

    def _histories(self, got: Fetched) -> Iterator[History]:
        """The new rows, in one piece or, if much of it is live, in several; their count is audited at the end."""
        new = self._tail(got) if "history" in got.node else None
        if new is not None and self.so_far.rows + len(new) >= got.now.lines:
            yield self._counted(got, self._assemble([], new, count=got.now.lines - self.so_far.rows))
        else:
            yield from self._all(got)
        self._audit(got)

    def _tail(self, got: Fetched) -> list[Node]:
        """The rows after the last one in the cache. Raises Anew if that one is another by now."""
        last = self.so_far.last_step
        assert last is not None
        rows = _rows(got.node["history"])
        if len(rows) >= PAGE:
            rows = self._bisect(last, max(_step(rows[-1]) + 1, self._stop(got)))
        again = [row for row in rows if _step(row) == last]
        if again and self.so_far.stamp is not None and again[-1].get("_timestamp") != self.so_far.stamp:
            raise Anew
        return [row for row in rows if _step(row) > last]

    def _all(self, got: Fetched) -> Iterator[History]:
        """The rows that the cache does not have, from exports and the live tail."""
        node = got.node
        if "parquetHistory" not in node:
            node |= self.api.run(self.ref, {"exports"})
        exports = node.get("parquetHistory") or {}
        self.files = self._download(exports.get("parquetUrls") or [])
        have = None if self.whole or not self.so_far.rows else self.so_far.steps()
        steps = sorted(_step(row) for row in exports.get("liveData") or () if "_step" in row)
        if have is not None and len(have):
            known = set(have.tolist())
            steps = [step for step in steps if step not in known]
        pages = self._live(steps)
        if not self.files and not steps and got.now.lines > (0 if have is None else len(have)):
            # A server without exports, or one that does not tell which rows are live.
            pages = iter([self._bisect(0, self._stop(got))])
        live: list[Node] = []
        assembled = False
        for page in pages:
            live += page
            if len(live) >= LIVE_ROWS:
                yield self._counted(got, self._assemble([] if assembled else self.files, live, have=have))
                live, assembled = [], True
        if not assembled:
            yield self._whole(got, live, have)
        elif live:
            yield self._counted(got, self._assemble([], live, have=have))

    def _whole(self, got: Fetched, live: list[Node], have: NDArray[np.int64] | None) -> History:
        """Files and live rows as one history; where rows are missing, they are looked for in the gaps."""
        count = None if self.so_far.local else got.now.lines - (0 if have is None else len(have))
        history = self._assemble(self.files, live, count=count, have=have)
        missing = got.now.lines - history.rows - (0 if have is None else len(have))
        if missing > 0:
            steps = history.steps if have is None else np.union1d(history.steps, have)
            found = self._gaps(got, steps, missing)
            if found:
                history = self._assemble(self.files, [*live, *found], count=count, have=have)
        return self._counted(got, history)

    def _assemble(
        self,
        files: Sequence[Path],
        live: Sequence[Node],
        *,
        count: int | None = None,
        have: NDArray[np.int64] | None = None,
    ) -> History:
        return assemble(files, live, self.keys, count=count, have=have)

    def _counted(self, got: Fetched, history: History) -> History:
        got.rows += history.rows
        got.dropped += history.dropped
        return history

    def _audit(self, got: Fetched) -> None:
        """Compare with what the server counts. A run that still grows may have brought more."""
        missing = got.now.lines - got.rows
        if missing > 0:
            got.incomplete = f"{missing:,} of the {got.now.lines:,} rows that the server counts did not come"
        elif missing < 0 and got.now.ended and not self.so_far.local:
            got.incomplete = f"{got.rows:,} rows came, {-missing:,} more than the server counts"

    def _stop(self, got: Fetched) -> int:
        """A step after the last one, as far as the server tells."""
        keys = got.node.get("historyKeys") or {}
        told = keys.get("lastStep")
        if told is None:
            try:
                told = json.loads(got.node.get("summaryMetrics") or "{}").get("_step")
            except ValueError:
                told = None
        return int(told) + 1 if isinstance(told, (int, float)) and told >= 0 else _beyond(0)

    def _live(self, steps: Sequence[int]) -> Iterator[list[Node]]:
        """The rows of these steps (ascending), in pages of as many rows as a page takes, however far apart they are."""
        start = 0
        while start < len(steps):
            end = min(start + PAGE, len(steps))
            while end < len(steps) and end - 1 > start and steps[end] == steps[end - 1]:
                end -= 1  # equal steps on one page
            yield _rows(self.api.page(self.ref, steps[start], steps[end - 1] + 1, PAGE))
            start = end

    def _bisect(self, first: int, stop: int) -> list[Node]:
        """All rows with first <= step < stop, where nobody knows which steps there are: a full page is cut in two."""
        rows: list[Node] = []
        ranges = [(first, stop)]
        while ranges:
            low, high = ranges.pop()
            page = _rows(self.api.page(self.ref, low, high, PAGE))
            steps = sorted(map(_step, page))
            if len(page) < PAGE or high - low <= 1 or steps[0] == steps[-1]:
                rows += page
                continue
            # What came is a sample of what there is, so its middle is about the middle.
            middle = max(steps[len(steps) // 2], low + 1)
            ranges += [(middle, high), (low, middle)]
        return rows

    def _gaps(self, got: Fetched, steps: NDArray[np.int64], missing: int) -> list[Node]:
        """Rows between those that came, from the widest gaps first."""
        edges = np.concatenate(([-1], steps, [self._stop(got)]))
        widths = np.diff(edges) - 1
        widest = [i for i in np.argsort(-widths, kind="stable")[:GAPS].tolist() if widths[i] > 0]
        found: list[Node] = []
        for i in widest:
            found += self._bisect(int(edges[i]) + 1, int(edges[i + 1]))
            if len(found) >= missing:
                break
        return found

    def _download(self, urls: Sequence[str]) -> list[Path]:
        """The exports, all of them; their addresses expire, then they are asked for again."""
        for attempt in range(3):
            paths = [self.folder / f"{attempt}-{i}.parquet" for i in range(len(urls))]
            try:
                if len(urls) == 1:
                    self.api.download(urls[0], paths[0])
                elif urls:
                    with ThreadPoolExecutor(min(4, len(urls))) as pool:
                        list(pool.map(self.api.download, urls, paths))
                return paths
            except ExpiredURL:
                if attempt == 2:
                    raise
                for path in paths:
                    path.unlink(missing_ok=True)
                urls = (self.api.run(self.ref, {"exports"}).get("parquetHistory") or {}).get("parquetUrls") or []
        raise AssertionError

    # -- the other streams

    def _events_due(self, before: Fingerprint | None) -> bool:
        """Whether to ask for machine metrics: all of them come each time, so with many it takes more than a few."""
        count, seen = self.listed.events, self.so_far.state.events
        if count is None:
            return before is None or self.listed != before
        return count != seen and (count < 2000 or count > seen * 1.05 or self.listed.ended)

    def _take_events(self, got: Fetched) -> None:
        """Samples that are new. If the server leaves some out, those it gives now and then are put together."""
        if "events" not in got.node:
            return
        events = _rows(got.node["events"] or ())
        state, counted = got.state, got.now.events
        if counted is None or len(events) >= counted:
            new = events[state.events :] if len(events) >= state.events else []
        else:
            until = state.events_until
            new = [one for one in events if until is None or (_time(one) or 0.0) > until]
            left = counted - state.events - len(new)
            if left > 0:
                got.problems.append(f"{left:,} of {counted:,} samples of machine metrics: the server gives no more")
        state.events = max(len(events), counted or 0)
        if new:
            got.system = [event_columns(new, state.samples, self.keys)]
            state.samples += len(new)
            state.events_until = max([one for one in map(_time, new) if one is not None], default=state.events_until)

    def _take_console(self, got: Fetched) -> None:
        """Lines that are new; of a run that goes on, the last may still be rewritten and is left for the next time."""
        page = got.node.get("logLines")
        if page is None:
            return
        state = got.state
        lines: list[ConsoleLine] = []
        number = state.lines
        while True:
            nodes = [edge["node"] for edge in page.get("edges") or ()]
            for node in nodes:
                if int(node.get("number", number)) >= number:
                    time = unix(node.get("timestamp"))
                    lines.append(
                        ConsoleLine(node.get("line") or "", time, node.get("level") or "", node.get("label") or "")
                    )
                    number += 1
            info = page.get("pageInfo") or {}
            if not info.get("hasNextPage") or not info.get("endCursor") or info["endCursor"] == state.after:
                break
            state.after = info["endCursor"]
            page = self.api.console(self.ref, state.after)
        if lines and not got.now.ended:
            lines.pop()
        if lines:
            got.console = [console_columns(lines, state.lines)]
            state.lines += len(lines)

    def _take_files(self, got: Fetched) -> None:
        page = got.node.get("files")
        if page is None:
            return
        nodes = [edge["node"] for edge in page.get("edges") or ()]
        info = page.get("pageInfo") or {}
        if info.get("hasNextPage") and info.get("endCursor"):
            nodes += self.api.more_files(self.ref, info["endCursor"])
        got.files = list(file_records(nodes).values())
        got.state.files = True


def _rows(texts: Sequence[Any]) -> list[Node]:
    """Rows that come as JSON texts, or as objects."""
    return [json.loads(text, strict=False) if isinstance(text, str) else text for text in texts]


def _step(row: Node) -> int:
    return int(row.get("_step") or 0)


def _time(event: Node) -> float | None:
    time = event.get("_timestamp")
    return float(time) if isinstance(time, (int, float)) else None


def _beyond(step: int) -> int:
    """A step after every one there is; within 32 bits if need be, which no server refuses."""
    return 2**31 - 1 if step < 2**30 else 2**53
