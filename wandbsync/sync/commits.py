"""What is to be committed next: small runs together, a large one in parts, and nothing held back for long."""

from __future__ import annotations

import time

from ..cache import Cache, Share

VALUES = 2_000_000  # held in memory before they are committed; each takes about 60 bytes on the way
RUNS = 400
SECONDS = 5.0


class Commits:
    """Shares that wait for the next commit."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.shares: list[Share] = []
        self.values = 0
        self.since = time.monotonic()

    def add(self, share: Share, values: int) -> bool:
        """Put a share into the next commit; whether that is due now."""
        self.shares.append(share)
        self.values += values
        return len(self.shares) >= RUNS or self.values >= VALUES or time.monotonic() - self.since > SECONDS

    def flush(self) -> list[tuple[Share, int | None]]:
        """Commit what there is; each share and its run's revision now, None if another process was first."""
        shares, self.shares, self.values, self.since = self.shares, [], 0, time.monotonic()
        return list(zip(shares, self.cache.commit(shares), strict=True)) if shares else []
