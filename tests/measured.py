"""One line of `make bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """One line: `ours` beside `theirs` and what their ratio, or ours alone, should be."""

    what: str
    ours: float
    theirs: float | None
    unit: str  # "s", "MB", "requests"
    goal: str
    note: str = ""

    def __str__(self) -> str:
        peer = "" if self.theirs is None else f" / {self.theirs:9.3f} = {self.ours / self.theirs:7.3f}"
        return f"{self.what:<62} {self.ours:9.3f} {self.unit:<8}{peer:<22} {self.goal:<18} {self.note}"

    def facts(self) -> dict[str, Any]:
        ratio = None if self.theirs is None else self.ours / self.theirs
        return {"what": self.what, "ours": self.ours, "peer": self.theirs, "ratio": ratio, "goal": self.goal,
                "unit": self.unit, "note": self.note}  # fmt: skip
