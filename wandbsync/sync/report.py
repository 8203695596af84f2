"""What a pass tells: how far it is, and what it found and did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..model import RunRef

if TYPE_CHECKING:
    from ..sources.local import Finding


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that could not be synced: the log or folder, why, and what to try next."""

    subject: str
    reason: str
    harmless: bool = False  # nothing is missing: there is nothing to read yet


@dataclass(slots=True)
class SyncReport:
    """What a pass found and did."""

    logs: int = 0  # found on this machine
    found: Finding | None = None  # what lies in the folders of this machine
    listed: int = 0  # runs that a server has
    planned: list[Any] = field(default_factory=list)  # the actions; each prints as a sentence
    runs: int = 0  # that got new rows or changed
    new_runs: int = 0
    rows: int = 0  # history rows
    values: int = 0  # of all streams
    bytes_read: int = 0  # of logs, or received from a server
    requests: int = 0  # sent to a server
    waited: float = 0.0  # seconds, for a server's rate limit
    more: bool = False  # it was ended before all was done; the next pass goes on
    left: list[RunRef] = field(default_factory=list)  # runs with so much to read that a whole pass has to do it
    overtaken: list[RunRef] = field(default_factory=list)  # runs that another process was syncing meanwhile
    deleted: int = 0  # runs found to be gone from the server
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was done differently than one might expect
    seconds: float = 0.0
    dry_run: bool = False

    @property
    def partial(self) -> bool:
        return any(not problem.harmless for problem in self.problems)


@dataclass(slots=True)
class Progress:
    """How far a pass is; given to the `progress` callable as it goes."""

    bytes_total: int = 0
    bytes_done: int = 0
    runs_total: int = 0
    runs_done: int = 0
    listed: int = 0
    rows: int = 0
    waited: float = 0.0  # seconds, for a server's rate limit
