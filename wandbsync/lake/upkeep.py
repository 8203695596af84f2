"""Looking after a lake: small files become large ones, and what nobody reads any more is removed.

Compaction merges the files of a bucket, and keeps them sorted in what matters: a bucket is all of 256 runs at the most.
It changes no row, so readers and publishers need not wait; a conflict is retried. What it replaced stays for seven
days, for readers of older versions, until a vacuum. A vacuum that keeps less can break a query that is under way and a
publication that is about to commit: it takes a word of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import NothingCached, UsageError, WandbsyncError
from . import tables
from .address import Address
from .delta import TRIES, Lake

SAFE = 7 * 24.0  # hours


@dataclass(frozen=True, slots=True)
class Looked:
    """What became of one table."""

    table: str
    merged: int = 0  # files, into ...
    into: int = 0  # ... so many
    removed: int = 0  # files that nobody reads any more
    dry_run: bool = False

    def __str__(self) -> str:
        parts = []
        if self.merged:
            parts.append(f"{self.merged} files merged into {self.into}")
        if self.removed:
            parts.append(f"{self.removed} old files {'would be ' * self.dry_run}removed")
        return f"{self.table}: {', '.join(parts) or 'nothing to do'}"


def look_after(
    address: Address,
    *,
    compact: bool,
    vacuum: bool,
    hours: float = SAFE,
    force: bool = False,
    dry_run: bool = False,
) -> list[Looked]:
    """Compact the tables of a lake, then vacuum them. Raises UsageError for a vacuum that is not safe."""
    if vacuum and hours < SAFE and not force:
        raise UsageError(
            f"a vacuum that keeps less than {SAFE:g} hours may break what others do now",
            hint="--force does it all the same, if nobody reads or publishes",
        )
    lake = Lake(address)
    if lake.table("projects") is None:
        raise NothingCached(f"there is no lake at {address}", hint="`wandbsync publish` makes one")
    looked = []
    for name in tables.COLUMNS:
        if lake.table(name) is not None:
            merged, into = _compact(lake, name) if compact and not dry_run else (0, 0)
            removed = _vacuum(lake, name, hours, dry_run=dry_run) if vacuum else 0
            looked.append(Looked(name, merged, into, removed, dry_run))
    return looked


def _compact(lake: Lake, name: str) -> tuple[int, int]:
    from deltalake.exceptions import CommitFailedError

    for attempt in range(TRIES):
        table = lake.table(name)
        assert table is not None
        try:
            with lake.errors("compact", but=CommitFailedError):
                done = table.optimize.compact(target_size=tables.FILE_BYTES, writer_properties=tables.writing(name))
                table.create_checkpoint()
            return int(done["numFilesRemoved"]), int(done["numFilesAdded"])
        except CommitFailedError as error:
            lake.forget(name)
            if attempt == TRIES - 1:
                raise WandbsyncError(f"cannot compact {name}: {error}", hint="it is busy; try again later") from error
            lake.pause(attempt)
    raise AssertionError


def _vacuum(lake: Lake, name: str, hours: float, *, dry_run: bool) -> int:
    """Files that are no part of any version so old are removed, those of interrupted publications too."""
    table = lake.table(name)
    assert table is not None
    with lake.errors("vacuum"):
        gone = table.vacuum(
            retention_hours=int(hours), dry_run=dry_run, enforce_retention_duration=hours >= SAFE, full=True
        )
        if not dry_run:
            table.cleanup_metadata()
    return len(gone)
