"""What strangers wrote, on its way to people: no control character of theirs reaches a terminal.

Names of runs, metrics, files and projects, texts of a server and messages that quote them may hold anything: escape
sequences that retitle, clear or recolour a terminal, line ends that forge a line of ours, marks that turn the direction
of what follows. Whatever the program says goes through `echo`, whatever it prints as JSON through
`json_text`. What is data for another program (CSV in a pipe or a file, Parquet) stays exact.
"""

from __future__ import annotations

import re
import sys
from typing import Any, TextIO

# Unicode's categories Cc, Cs, Zl, Zp and Cf, but for the joiners of emoji and of Persian and Indic words.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001-\U000e007f]"
)
_SPACE = frozenset("\t\n\v\f\r\x85\u2028\u2029")


def printable(text: str) -> str:
    """`text` as one line of what has a shape: spaces for line ends and tabs, `\\x1b` for other control characters."""
    return text if text.isprintable() else _CONTROL.sub(_shown, text)


def json_text(text: str) -> str:
    """A JSON document with every control character in its strings written as JSON can, `\\u001b`: the same values."""
    return _CONTROL.sub(_escaped, text)


def echo(text: str = "", *, err: bool = False, file: TextIO | None = None) -> None:
    """Say one line, to stdout, stderr or a file."""
    import click

    click.echo(printable(text), err=err, file=file)


def echo_lines(text: str, *, err: bool = False) -> None:
    """Say several lines of ours; for texts in which no stranger's word can end a line."""
    for line in text.splitlines():
        echo(line, err=err)


def show_crash(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """`sys.excepthook`: a traceback quotes strangers as well."""
    import traceback

    for line in "".join(traceback.format_exception(kind, error, trace)).split("\n"):
        print(" " * (len(line) - len(line.lstrip(" "))) + printable(line.strip(" ")), file=sys.stderr)


def _shown(found: re.Match[str]) -> str:
    char = found[0]
    return " " if char in _SPACE else char.encode("unicode_escape", "surrogatepass").decode()


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    if char == "\n":
        return char  # between two values: in a string it is escaped already
    if (code := ord(char)) > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"
