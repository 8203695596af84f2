"""How far each source has been read: kept with the rows it vouches for, so that both are there or neither."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from ..model import Fingerprint
from . import catalog


@dataclass(frozen=True, slots=True)
class LogCursor:
    """How far one `.wandb` log has been read; stored with the rows it vouches for."""

    path: str
    log_key: str  # the same for copies of one log
    signature: str  # of the file when it was read; equal means: nothing to read
    position: str  # the reader's, as JSON
    started_at: float | None
    rewinds_to: int | None  # the step of its own run that this log goes on from
    status: str  # open, ended (its exit record was read), crashed, or copy (of a log that is read instead)
    state: str  # the source's own, as JSON


@dataclass(frozen=True, slots=True)
class MirrorCursor:
    """How far a run has been mirrored from a server; stored with the rows it vouches for."""

    described: Fingerprint | None = None  # listed when its record was taken
    fetched: Fingerprint | None = None  # noted before its rows were fetched; None: they were not
    state: str = "{}"  # the source's own, as JSON
    failures: int = 0  # in a row
    retry_at: float | None = None  # unix seconds: leave it alone until then
    reason: str | None = None  # of the last failure
    tried: Fingerprint | None = None  # noted before the last attempt, if it failed
    owed: bool = False  # an attempt to fetch all rows anew failed, and none has worked since


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A run of the cache as a sync with a server has to know it."""

    cursor: MirrorCursor | None  # None: only local logs are known
    rows: int  # of its history, whatever the source
    local: str | None  # None: no local log; "open": one of them was still being written; "ended"
    incomplete: str | None
    deleted: bool
    evicted: bool = False  # its rows were removed to save space


def cells(cursor: MirrorCursor) -> tuple[Any, ...]:
    """A cursor as a row of the catalog, without its run."""
    described = _text(cursor.described)
    fetched = described if cursor.fetched == cursor.described else _text(cursor.fetched)
    tried = _text(cursor.tried)
    return described, fetched, cursor.state, cursor.failures, cursor.retry_at, cursor.reason, tried, cursor.owed


def mirror_cursor(row: sqlite3.Row) -> MirrorCursor:
    """The cursor in a row of the catalog."""
    described, fetched = row["described"], row["fetched"]
    known = _fingerprint(described)
    return MirrorCursor(
        known,
        known if fetched == described else _fingerprint(fetched),
        row["state"],
        row["failures"],
        row["retry_at"],
        row["reason"],
        _fingerprint(row["tried"]),
        bool(row["owed"]),
    )


def _text(one: Fingerprint | None) -> str | None:
    if one is None:
        return None
    return catalog.dump([getattr(one, field) for field in one.__slots__])  # astuple copies deeply, which takes long


def _fingerprint(text: str | None) -> Fingerprint | None:
    return None if text is None else Fingerprint(*json.loads(text))
