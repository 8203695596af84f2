"""One pass: list -> plan -> read -> commit -> report; from local logs, and from a W&B server.

local    reading   logs of this machine     server   listing  arrivals   runs of a server
commits  report    what both have           files    viewer              what comes last, and whose the key is
"""

from __future__ import annotations

from .local import sync_local
from .report import Problem, Progress, SyncReport

__all__ = ["Problem", "Progress", "SyncReport", "sync_local"]
