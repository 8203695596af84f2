"""One pass: list -> plan -> read -> commit -> report; from local logs, and from a W&B server."""

from __future__ import annotations

from .local import sync_local
from .report import Problem, Progress, SyncReport

__all__ = ["Problem", "Progress", "SyncReport", "sync_local"]
