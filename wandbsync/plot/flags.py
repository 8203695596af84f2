"""Options as words on a command line, and back: each field of `PlotOptions` carries its flag, help and parser.

    smooth: int | None = option(None, "--smooth N", SMOOTHING, "Draw the mean of the last N values.", WHOLE)

The command line, its help and the command in metadata.json are made of these alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import UsageError

WHAT, RUNS, AXES, SMOOTHING = "What", "Which runs", "Axes", "Smoothing"
GROUPS, LOOK, OUTPUT = "Groups", "Look", "Output"
SECTIONS = (WHAT, RUNS, AXES, SMOOTHING, GROUPS, LOOK, OUTPUT)  # of the help, in this order

Limits = tuple["float | None", "float | None"]


@dataclass(frozen=True, slots=True)
class Value:
    """How a value is read from a text, and written so that it is read back as it was."""

    parse: Callable[[str], Any]
    write: Callable[[Any], str] = str


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. With a `metavar` it takes a value, else it is a switch that stands for `stands_for`."""

    words: str
    metavar: str | None
    section: str
    help: str
    value: Value
    stands_for: Any = True

    @property
    def name(self) -> str:
        """As an argument of a function."""
        return self.words.removeprefix("--").replace("-", "_")

    def parsed(self, text: str) -> Any:
        """The value that was written. Raises UsageError, which names the flag."""
        try:
            return self.value.parse(text)
        except UsageError as error:
            raise UsageError(f"{self.words}: {error}", hint=error.hint) from error


TEXT = Value(str)


def flag(words: str, section: str, help: str, value: Value = TEXT, *, stands_for: Any = True) -> Flag:
    """`--smooth N` takes a value, `--logx` is a switch."""
    name, _, metavar = words.partition(" ")
    return Flag(name, metavar or None, section, help, value, stands_for)


def option(default: Any, words: str, section: str, help: str, value: Value = TEXT) -> Any:
    """A field with its flag."""
    return switches(default, flag(words, section, help, value))


def switches(default: Any, *flags: Flag) -> Any:
    """A field with several flags, or with one that stands for something else than True."""
    return field(default=default, metadata={"flags": flags})


def flags_of(kind: Any) -> Iterator[tuple[Field[Any], Flag]]:
    """Each flag of a class of options, and the field that it is of."""
    for one in fields(kind):
        for each in one.metadata["flags"]:
            yield one, each


def read(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that flags set, of what was given by their names: texts, and True for switches.

    Raises UsageError for a text that has no such value, and for two flags that contradict each other.
    """
    found: dict[str, Any] = {}
    said: dict[str, str] = {}
    for one, flag in flags_of(kind):
        text = given.get(flag.name)
        if text is None or text is False:
            continue
        if one.name in said:
            raise UsageError(f"{said[one.name]} and {flag.words} contradict each other")
        said[one.name] = flag.words
        found[one.name] = flag.stands_for if flag.metavar is None else flag.parsed(text)
    return found


def written(options: Any, *, without: Collection[str] = ()) -> list[str]:
    """The words that say options; those that are as by default left out, and the fields in `without`."""
    words: list[str] = []
    for one, flag in flags_of(type(options)):
        value = getattr(options, one.name)
        if value == one.default or one.name in without:
            continue
        if flag.metavar is not None:
            words += [flag.words, flag.value.write(value)]
        elif value == flag.stands_for:
            words.append(flag.words)
    return words


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a whole number") from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a number") from error


def _names(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _limits(text: str) -> Limits:
    """`0,1`, `0,` or `,1`."""
    try:
        low, high = (float(part) if part.strip() else None for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{text!r} is not two numbers", hint="write it like 0,100 or 0,") from error
    return low, high


def _inches(text: str) -> tuple[float, float]:
    try:
        width, height = (float(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError as error:
        raise UsageError(f"{text!r} is no size in inches", hint="write it like 8x4.8") from error
    return width, height


WHOLE = Value(_whole)
NUMBER = Value(_number, repr)
NAMES = Value(_names, ",".join)
LIMITS = Value(_limits, lambda ends: ",".join("" if end is None else repr(end) for end in ends))
INCHES = Value(_inches, lambda size: "x".join(map(repr, size)))
PATH = Value(Path)
