"""What the program printed, line by line."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from .. import query
from ..model import CONSOLE, is_time
from .pages import Pages

if TYPE_CHECKING:
    from .run import Run

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class ConsoleLogLine:
    """One line. `level` is "error" for what went to stderr, else empty; `label` is that of the process, such as
    rank-0, where several printed; `timestamp` is None where none is known."""

    number: int
    timestamp: datetime | None
    level: str
    label: str
    content: str


class ConsoleLogs(Pages[ConsoleLogLine]):
    """The lines of a run, oldest first; of `last`, the last so many."""

    def __init__(self, run: Run, per_page: int = 1000, last: int | None = None) -> None:
        super().__init__(self._lines, per_page)
        self.run, self._last = run, last

    def _lines(self) -> list[ConsoleLogLine]:
        rows = query.history(self.run._ask(rows=True), self.run._ref, stream=CONSOLE).sort_by("step").to_pylist()
        if self._last is not None:
            rows = rows[-self._last :] if self._last > 0 else []
        return [
            ConsoleLogLine(
                row["step"],
                None
                if row["value"] is None or not is_time(row["value"])
                else EPOCH + timedelta(microseconds=round(row["value"] * 1e6)),
                "error" if row["key"].startswith("stderr") else "",
                row["key"].partition(":")[2],
                row["value_json"] or "",
            )
            for row in rows
        ]

    def __repr__(self) -> str:
        return f"<ConsoleLogs {self.run.entity}/{self.run.project}/{self.run.id}>"
