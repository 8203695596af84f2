"""Rows of a log that came from the server before: told by their step and the time they were logged.

A run that logs here and is mirrored from the server is one run. Whichever source comes second leaves out what the first
has brought: a row with the same step and `_timestamp` is the same row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Here:
    """The rows of a run that are there already. Both arrays have a row each, ascending by step."""

    steps: NDArray[np.int64]
    stamps: NDArray[np.float64]  # `_timestamp`, NaN where there is none
    samples: int = 0  # of machine metrics
    lines: int = 0  # of the console

    def shift(self, step: int, stamp: float) -> int | None:
        """How far the steps of a log are from those here, told by one of its rows; None if that is not here."""
        import numpy as np

        found = self.steps[self.stamps == stamp]
        if not len(found):
            return None
        nearest = found[np.argmin(np.abs(found - step))]
        return int(nearest) - step

    def has(self, steps: NDArray[np.int64], stamps: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of these rows are here. Where one of the two has no time, the step decides."""
        import numpy as np

        if not len(self.steps):
            return np.zeros(len(steps), bool)
        place = np.minimum(np.searchsorted(self.steps, steps), len(self.steps) - 1)
        there = self.stamps[place]
        same = (there == stamps) | np.isnan(there) | np.isnan(stamps)
        both: NDArray[np.bool_] = (self.steps[place] == steps) & same
        return both
