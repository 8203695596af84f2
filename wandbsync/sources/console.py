"""What a program wrote, in pieces, as the lines that stand on the screen in the end.

A carriage return starts the line over, as progress bars do; backspace and erase-in-line work; colours and other
terminal commands are left out. A cursor that moves up is not followed: what it redraws comes as further lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

_CONTROL = re.compile(
    r"\x1b\[([0-?]*)[ -/]*([@-~])"  # a command with parameters, such as a colour
    r"|\x1b[]P^_X][^\x07\x1b]*(?:\x07|\x1b\\)"  # a text for the terminal, such as a title or a link
    r"|\x1b[ -/]+[0-~]|\x1b[0-OQ-WYZ\\`-~]"  # short ones
    r"|([\r\b])|[\x00-\x08\x0b-\x1f\x7f]"
)
# The beginning of one, at the end of a piece; what is longer than this was none.
_OPEN = re.compile(r"\x1b(?:\[[0-?]{,99}[ -/]{,9}|[]P^_X][^\x07\x1b]{,4096}\x1b?|[ -/]{,9})\Z")


@dataclass(slots=True)
class Line:
    """The line being written: its text so far, where the cursor stands, and when it was last written to."""

    text: str = ""
    cursor: int = 0
    time: float | None = None
    rest: str = ""  # the beginning of a terminal command whose end is still to come

    def write(self, piece: str) -> None:
        """Write a piece that holds no newline."""
        piece = self.rest + piece
        self.rest = ""
        if "\x1b" in piece and (begun := _OPEN.search(piece)):
            piece, self.rest = piece[: begun.start()], begun[0]
        at = 0
        for control in _CONTROL.finditer(piece):
            self._put(piece[at : control.start()])
            at = control.end()
            if control[3] == "\r":
                self.cursor = 0
            elif control[3] == "\b":
                self.cursor = max(0, self.cursor - 1)
            elif control[2] == "K":
                if control[1] == "2":
                    self.text = ""
                elif control[1] == "1":
                    self.text = " " * (self.cursor + 1) + self.text[self.cursor + 1 :]
                else:
                    self.text = self.text[: self.cursor]
        self._put(piece[at:])

    def end(self) -> str:
        """The line as it stands when nothing more comes."""
        self._put(_CONTROL.sub("", self.rest))
        return self.text.rstrip(" ")

    def _put(self, piece: str) -> None:
        if piece:
            end = self.cursor + len(piece)
            self.text = self.text[: self.cursor].ljust(self.cursor) + piece + self.text[end:]
            self.cursor = end


@dataclass(slots=True)
class Console:
    """The open lines of stdout and stderr; JSON-able, so that reading can go on in the middle of a line."""

    lines: dict[str, Line] = field(default_factory=dict)

    @classmethod
    def load(cls, state: dict[str, Any]) -> Console:
        return cls({stream: Line(**line) for stream, line in state.items()})

    def dump(self) -> dict[str, Any]:
        return {stream: asdict(line) for stream, line in self.lines.items() if line != Line()}

    def write(self, stream: str, time: float | None, text: str) -> Iterator[tuple[str, float | None, str]]:
        """The lines that this piece of output ends: (stream, unix seconds, text)."""
        line = self.lines.setdefault(stream, Line())
        *ended, open_end = text.split("\n")
        for piece in ended:
            line.write(piece)
            yield stream, time if time is not None else line.time, line.end()
            line = self.lines[stream] = Line()
        if open_end:
            line.write(open_end)
            line.time = time

    def close(self) -> Iterator[tuple[str, float | None, str]]:
        """The lines that were never ended, when the program has."""
        for stream, line in self.lines.items():
            if text := line.end():
                yield stream, line.time, text
        self.lines = {}


def rendered(pieces: Iterable[tuple[str, float | None, str]]) -> list[tuple[str, float | None, str]]:
    """All lines of a finished program."""
    console = Console()
    lines = [line for stream, time, text in pieces for line in console.write(stream, time, text)]
    return [*lines, *console.close()]
