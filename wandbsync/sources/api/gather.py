"""Gather the rows of a history that the cache does not have: from exports, and from pages of what is live.

    few new ones    the page after the last row in the cache, if that row is still there
    else            the exports -> what the server says is live -> what is in the gaps, if it counts more than came
    no storage      all rows by pages, where the exports lie on a storage that cannot be reached from here

Which of the two has a row may change while one asks, so what comes twice is told by its step. A history can be cut and
grow again between two looks, so the rows in the cache are compared with what is there. What the server counts decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ...errors import ExpiredURL, Unreachable
from ...model import RunRef
from ..keys import Keys
from .client import Api
from .exports import Source, is_whole, look, most_rows
from .history import STAMP, History, assemble
from .nodes import Node, step_of
from .pages import PAGE, at_steps, between, in_gaps
from .record import fingerprint, number
from .rows import row_steps

BATCH = 1_000_000  # values that are made at once
LIVE_ROWS = 50_000  # live rows held in memory
HOLD = 4 << 20  # bytes of small files of one run that are not written to the disk
LARGE = 100_000  # rows in the cache, from which on exports are not downloaded only to be compared with
DOWNLOADS = 4  # of one run at a time
AGAIN = 2  # times that a file is downloaded again which is none
SAME_TIME = 0.001  # seconds
NONE = np.empty(0, np.int64)
TEXTS = frozenset(("string", "utf8", "nil", ""))  # what the server calls them, and what is nothing


class Anew(Exception):
    """The rows in the cache are not those the server has now: all of them have to be fetched."""


@dataclass(frozen=True, slots=True)
class Had:
    """What the cache has of a history."""

    rows: int = 0
    last_step: int | None = None
    stamp: float | None = None  # `_timestamp` of the row of that step
    steps: Callable[[], NDArray[np.int64]] = field(default=lambda: NONE)  # each once, ascending
    exact: bool = True  # as the server had them; else some are from local logs, which nothing replaces


class Gathering:
    """The new rows of a run. What it says of them is right when all `pieces` have been taken.

    node: the answer to a question about the run: its record, and a page of its history or its exports, if asked for.
    """

    def __init__(self, api: Api, ref: RunRef, node: Node, had: Had, keys: Keys, folder: Path) -> None:
        self.api, self.ref, self.node, self.had, self.keys, self.folder = api, ref, node, had, keys, folder
        self.counted = fingerprint(node).lines  # noted before the rows were fetched
        self.rows = had.rows  # with those the cache had
        self.dropped = 0  # rows that came twice
        self.incomplete: str | None = None  # which rows did not come
        self.blocked: Unreachable | None = None  # why its exports could not be had
        self.numbers = itertools.count()  # of files
        self.wrote = False  # whether there are some in the folder
        asked = "history" in node or "parquetHistory" in node
        self.pieces: Iterator[History] = self._pieces() if asked or self.counted > had.rows else iter(())
        if number(node.get("historyLineCount")) is None:
            self.pieces = self._uncounted()

    def begin(self) -> None:
        """Take the first piece, which is all there is unless much of it is live. Raises Anew, and what Api raises."""
        first = list(itertools.islice(self.pieces, 2))
        self.pieces = itertools.chain(first, self.pieces)

    def _pieces(self) -> Iterator[History]:
        after = self._after()
        pieces = self._all() if after is None else iter([self._assembled([], after)])
        for piece in pieces:
            self.rows += piece.rows
            self.dropped += piece.dropped
            yield piece
        self._audit()

    def _audit(self) -> None:
        missing = self.counted - self.rows
        if missing > 0:
            self.incomplete = f"{missing:,} of the {self.counted:,} rows that the server counts did not come"
            if self.blocked is not None:
                self.incomplete += f": {self.blocked.line()}"
        elif missing < 0 and self.had.exact:
            counted = fingerprint(self.api.run(self.ref, {"record"})).lines  # some may have arrived meanwhile
            if self.rows > counted:
                self.incomplete = f"{self.rows:,} rows came, {self.rows - counted:,} more than the server counts"

    def _uncounted(self) -> Iterator[History]:
        """All rows of a server that does not count them."""
        files = self._download(self._exports().get("parquetUrls") or [])
        rows = [row for page in between(self.api, self.ref, 0, self._stop()) for row in page]
        piece = self._assembled(files, rows)
        self.rows += piece.rows
        if piece.rows:
            self.incomplete = "the server does not count the rows, so nobody can tell whether all of them came"
        yield piece

    # -- the page after the last row

    def _after(self) -> list[Node] | None:
        """The rows after the last one in the cache, if they are all that it lacks."""
        if "history" not in self.node:
            return None
        rows, last = self.node["history"] or [], self.had.last_step
        if last is None:
            return rows if self.counted <= len(rows) < PAGE else None
        if len(rows) >= PAGE:
            rows = [row for page in between(self.api, self.ref, last, self._stop()) for row in page]
        self._compare_page(rows)
        new = [row for row in rows if step_of(row) > last]
        # If the last one is not among them, it is exported by now, or gone.
        return new if len(new) < len(rows) and self.had.rows + len(new) >= self.counted else None

    # -- exports, and what is live

    def _all(self) -> Iterator[History]:
        exports, had = self._exports(), self.had
        have = had.steps() if had.rows else NONE
        live = np.sort(row_steps(exports.get("liveData") or ()))
        new = ~_among(live, have)
        # If just the live ones are new, a download would show no more than that the last row is still there.
        sure = had.rows > LARGE or had.last_step in live
        sure = sure and had.exact and had.rows + int(new.sum()) == self.counted
        files = [] if sure else self._download(exports.get("parquetUrls") or [])
        self._compare_files(files)
        unknown = sure or self.blocked or exports.get("liveData") is None
        known = None if unknown else int((~new).sum())
        seen = have
        rows: list[Node] = []
        left = self.counted - had.rows if self.blocked else int(new.sum())  # rows of pages still to come
        for page in self._live(live, new, exported=bool(files)):
            fresh = self._fresh(page, have)
            rows += fresh
            left = max(0, left - len(fresh))
            if len(rows) >= LIVE_ROWS:
                due = self.counted - self.rows - left
                piece = self._assembled(files, rows, have, due)
                self._compare_count(piece, known)
                seen = np.union1d(seen, piece.steps)
                if piece.rows + piece.dropped > due:  # some rows come twice, so later ones may too
                    have = seen
                files, rows, known = [], [], None
                yield piece
        due = self.counted - self.rows
        piece = self._assembled(files, rows, have, due)
        self._compare_count(piece, known)
        found = self._in_gaps(np.union1d(seen, piece.steps), due - piece.rows) if due > piece.rows else []
        yield self._assembled(files, [*rows, *found], have, due) if found else piece

    def _in_gaps(self, steps: NDArray[np.int64], missing: int) -> list[Node]:
        """Rows between those that came: the server counts more."""
        found = in_gaps(self.api, self.ref, steps, self._stop(), missing)
        self._compare_page(found)
        return found

    def _live(self, live: NDArray[np.int64], new: NDArray[np.bool_], *, exported: bool) -> Iterator[list[Node]]:
        """Pages with the live rows that are new, and with the last one of the cache, if it is live."""
        if not self.blocked and (len(live) or exported or self.counted <= self.had.rows):
            yield from at_steps(self.api, self.ref, live, new | (live == self.had.last_step))
        else:  # exports out of reach, a server without exports, or one that does not say what is live
            first = self.had.last_step if self.had.exact else None
            yield from between(self.api, self.ref, first or 0, self._stop())

    def _fresh(self, page: Sequence[Node], have: NDArray[np.int64]) -> list[Node]:
        """The rows of a page that the cache does not have."""
        self._compare_page(page)
        known = _among(row_steps(page), have).tolist()
        return [row for row, old in zip(page, known, strict=True) if not old]

    def _assembled(
        self,
        files: Sequence[Source],
        rows: Sequence[Node],
        have: NDArray[np.int64] = NONE,
        count: int | None = None,
    ) -> History:
        return assemble(
            files,
            rows,
            self.keys,
            count=count if self.had.exact else None,
            have=have if len(have) else None,
            mixed=_mixed(self.node),
            most=self._most,
            batch=BATCH,
        )

    @property
    def _most(self) -> int | None:
        """How many rows exports may have; None if the server does not count them."""
        return None if number(self.node.get("historyLineCount")) is None else most_rows(self.counted)

    def _exports(self) -> Node:
        if "parquetHistory" not in self.node:
            refused = self.node.get("errors", {}).get("exports")
            if refused is not None:
                raise refused
            self.node |= self.api.run(self.ref, {"exports"})
        return self.node.get("parquetHistory") or {}

    def _download(self, urls: Sequence[str]) -> list[Source]:
        """The exported files; none if their storage cannot be reached, and then the pages of the API have their rows.

        Addresses that have expired are asked for again, as long as that brings more files.
        """
        files: dict[str, Source] = {}
        in_vain = 0
        while True:
            named = dict(zip(_names(urls), urls, strict=True))
            before = len(files)
            try:
                self._download_some({name: url for name, url in named.items() if name not in files}, files)
                return [files[name] for name in named]
            except Unreachable as error:
                self.blocked = error
                return []
            except ExpiredURL:
                in_vain = 0 if len(files) > before else in_vain + 1
                if in_vain > 1:
                    raise
            urls = (self.api.run(self.ref, {"exports"}).get("parquetHistory") or {}).get("parquetUrls") or []

    def _download_some(self, urls: dict[str, str], files: dict[str, Source]) -> None:
        """Add to `files` what comes; then raise what kept the others away."""
        paths = {name: self.folder / f"{number}.parquet" for name, number in zip(urls, self.numbers, strict=False)}
        hold = HOLD // max(1, len(urls))
        if len(urls) == 1:  # as of most runs: not worth a thread
            ((name, url),) = urls.items()
            files[name] = self._load(url, paths[name], hold)
            return
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            coming = {name: pool.submit(self._load, url, paths[name], hold) for name, url in urls.items()}
        files |= {name: one.result() for name, one in coming.items() if one.exception() is None}
        for one in coming.values():
            one.result()

    def _load(self, url: str, path: Path, hold: int) -> Source:
        """An exported file; again if it was cut short and nothing else told."""
        source = self.api.load(url, path, hold=hold)
        for _ in range(AGAIN):
            if is_whole(source):
                break
            source = self.api.load(url, path, hold=hold)
        self.wrote |= isinstance(source, Path)
        return source

    def _stop(self) -> int:
        """A step after the last one, as far as the server tells; within 32 bits if need be, which none refuses."""
        return max((number((self.node.get("historyKeys") or {}).get("lastStep")) or 0) + 1, 2**31 - 1)

    # -- is what the cache has still there?

    def _compare_page(self, rows: Sequence[Node]) -> None:
        self._compare_times([row.get(STAMP) for row in rows if step_of(row) == self.had.last_step])

    def _compare_files(self, files: Sequence[Source]) -> None:
        for source in files if self.had.stamp is not None else ():
            export = look(source, hold=False, most=self._most)
            at = np.flatnonzero(export.steps == self.had.last_step)
            if len(at) and STAMP in export.sizes:
                self._compare_times(export.read([STAMP])[STAMP].take(at).to_pylist())

    def _compare_times(self, stamps: Sequence[Any]) -> None:
        """Raise Anew if none of these, of the rows of the last step, is the one that the cache has."""
        given = [stamp for stamp in stamps if isinstance(stamp, (int, float))]
        ours = self.had.stamp
        if self.had.exact and given and ours is not None and all(abs(one - ours) > SAME_TIME for one in given):
            raise Anew

    def _compare_count(self, piece: History, known: int | None) -> None:
        """Raise Anew if the server has more or fewer rows at the steps that the cache has; `known` of them are live."""
        if known is None or not self.had.rows or not self.had.exact:
            return
        there = known + piece.had
        if there < self.had.rows or (there > self.had.rows and self.rows + piece.rows < self.counted):
            raise Anew


def _among(steps: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which steps are among others."""
    if not len(ascending):
        return np.zeros(len(steps), np.bool_)
    found: NDArray[np.bool_] = ascending[np.searchsorted(ascending[:-1], steps)] == steps
    return found


def _names(urls: Sequence[str]) -> Sequence[str]:
    """What tells the files of these addresses apart, whenever they are signed."""
    paths = [urlsplit(url).path for url in urls]
    return paths if len(set(paths)) == len(paths) else urls


def _mixed(node: Node) -> set[str]:
    """The keys of which the server counts values of other types than text: {"type": "number"}, "float64 | utf8" ..."""
    found: set[str] = set()
    keys = (node.get("historyKeys") or {}).get("keys")
    for name, one in keys.items() if isinstance(keys, dict) else ():
        counts = one.get("typeCounts") if isinstance(one, dict) else None
        for kind in counts or ():
            types = str(kind.get("type") or "").split("|") if isinstance(kind, dict) else ()
            if {text.strip() for text in types} - TEXTS:
                found.add(name)
    return found
