"""Read a `.wandb` log: `windows(path)` gives what was logged, a piece at a time; `head(path)` says whose log it is.

A log is read while a training job writes it: the file is opened for reading only, nothing is locked, and a torn tail
(half a record at the end) is left for the next read. `windows` resumes where a Position says. Nothing here needs the
SDK, and memory is bounded by the window, not by the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import EmptyLog, LogError, NewerLog, NotALog, ReplacedLog
from ..model import is_time
from . import framing, vector, wire
from .values import NO_STEP, Keys, Rows, Table, cells_of, history_row, system_row

__all__ = ["NO_STEP", "Event", "Gap", "Head", "Position", "Printed", "Rows", "Window", "head", "windows"]

WINDOW = 2 << 20
LARGEST = 32 << 20  # bytes of a record; decoding takes ten times that in memory
TOO_LARGE = f"a record larger than {LARGEST >> 20} MiB"
VECTOR_FROM = 128 << 10  # below this the plain path is the faster one

_NAMES = {field.number: field.name for field in wire.Record.DESCRIPTOR.oneofs_by_name["record_type"].fields}
_HISTORY = wire.Record.HISTORY_FIELD_NUMBER
_OUTPUT = (wire.Record.OUTPUT_FIELD_NUMBER, wire.Record.OUTPUT_RAW_FIELD_NUMBER)
_STREAMS = ("stderr", "stdout")
_NESTED_FIRST = re.compile(rb"\n[\x80-\xff]*[\x00-\x7f]\x12").match


@dataclass(frozen=True, slots=True)
class Position:
    """Where to go on reading; plain numbers, to be stored with the rows read so far.

    offset: file offset of the end of the last whole record read. base: block base of the log, 0 or 7.
    last, crc: file offset and stored crc32 of that record's last chunk, to tell on resuming that the file is the same.
    """

    offset: int = 0
    base: int = 0
    last: int = 0
    crc: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes [start, end) of the file that could not be read, and why."""

    start: int
    end: int
    reason: str


@dataclass(frozen=True, slots=True)
class Printed:
    """Text written to the console: consecutive writes to one stream, up to one that ends in a newline.

    rows_before: how many history rows of this window precede it. stream: "stdout" or "stderr".
    time: when the last of the writes was made, unix seconds. A line goes on in the next Printed if no newline ends it.
    """

    rows_before: int
    stream: str
    time: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Event:
    """Any other record. `name` is the record's field name and `message` the decoded message, both as in runlog.proto.

    rows_before: how many history rows of this window precede it.
    """

    rows_before: int
    name: str
    message: Any


@dataclass(frozen=True, slots=True)
class Window:
    """What a piece of the log says. `position` is the end of the piece; `gaps` lie before that."""

    history: Rows
    system: Rows
    printed: list[Printed]
    events: list[Event]
    position: Position
    gaps: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """Whose log it is, from its first records; "" or None for what they do not say.

    run_id: from the run record, or else from the file name. branch_point: the run and step it was forked or rewound at.
    offline: True if it says so.
    key: the same for copies of a log and as it grows; another for another log, even of the same run (a resumed run).
    """

    run_id: str
    entity: str
    project: str
    display_name: str
    start_time: float | None
    branch_point: tuple[str, int] | None
    offline: bool | None
    key: str


def windows(
    path: str | PathLike[str], start: Position | None = None, *, size: int = WINDOW, stop: int | None = None
) -> Iterator[Window]:
    """What the log holds from `start` on, in windows of about `size` bytes that end between two records.

    A record larger than the window makes a larger window, one larger than LARGEST is a gap. A torn tail is not an
    error: it is read next time, from the last window's position. What was written from byte `stop` on is left alone.
    Bytes that cannot be read although sound ones follow are reported as gaps. Raises EmptyLog, NotALog, NewerLog,
    ReplacedLog if the file is not the one `start` belongs to, and LogError if the file cannot be read at all.
    """
    decoder = _Decoder()
    for found, origin, position, gaps in _pieces(Path(path), start, size, stop):
        yield decoder.window(found, origin, position, gaps)


def head(path: str | PathLike[str]) -> Head:
    """Whose log this is; reads the first records only. Raises like `windows`; EmptyLog while there are under two."""
    path = Path(path)
    records: list[bytes] = []
    for found, *_ in _pieces(path, None, 64 << 10):
        records += found.records
        if len(records) >= 2:
            break
    else:
        raise EmptyLog(f"{path} has no whole run record yet")
    # Every known writer starts with a header and the run. The others get what their first window says.
    run, telemetry = wire.EVENTS["run"](), wire.EVENTS["telemetry"]()
    for record in reversed(records):
        with contextlib.suppress(wire.DecodeError):
            envelope = wire.Record.FromString(record)
            match envelope.WhichOneof("record_type"):
                case "run":
                    run = wire.EVENTS["run"].FromString(envelope.run)
                case "telemetry":
                    telemetry = wire.EVENTS["telemetry"].FromString(envelope.telemetry)
    if run.HasField("telemetry"):
        telemetry = run.telemetry
    branch = run.branch_point
    started = wire.seconds(run.start_time) if run.HasField("start_time") else math.nan
    return Head(
        run_id=run.run_id or path.name.removeprefix("run-").removesuffix(".wandb"),
        entity=run.entity,
        project=run.project,
        display_name=run.display_name,
        start_time=started if is_time(started) else None,
        branch_point=(branch.run, int(branch.value)) if run.HasField("branch_point") else None,
        offline=telemetry.feature.offline or None,
        key=hashlib.blake2b(b"".join(records[:2]), digest_size=8).hexdigest(),
    )


def _pieces(
    path: Path, start: Position | None, size: int, stop: int | None = None
) -> Iterator[tuple[framing.Frames, int, Position, list[Gap]]]:
    """The whole records, a window at a time: with the offset of the first, the position after the last, the gaps."""
    with _reading(path), open(path, "rb") as file:
        position = _checked(file, path, start or Position())
        at, base = position.offset, position.base
        gaps: list[Gap] = []
        want = size
        while True:
            file.seek(at)
            data = file.read(want if stop is None else max(0, min(want, stop - at)))
            found = framing.frames(data, at, base)
            if found.problem and base == 0 and framing.frames(data, at, 7).stop > found.stop:
                base = 7
            elif found.records:
                position = Position(found.ends[-1], base, found.last, found.crc)
                yield found, at, position, gaps
                at, gaps, want = position.offset, [], size
            elif found.problem:
                sound = framing.resync(file, found.stop, base)
                if sound is None:
                    return  # nothing but damage up to the end: a tail being written
                gaps.append(Gap(at, sound[0], found.problem))
                at, base = sound
            elif len(data) < want:
                return
            elif want >= LARGEST:
                passed = framing.skipped(file, found.stop, base)
                if passed is None:
                    return  # still being written
                position = Position(passed.stop, base, passed.last, passed.crc)
                yield passed, at, position, [*gaps, Gap(at, passed.stop, TOO_LARGE)]
                at, gaps, want = position.offset, [], size
            else:
                want *= 2


def _checked(file: BinaryIO, path: Path, start: Position) -> Position:
    """`start`, moved behind the file header if it is the very beginning, after a look whether the file is right."""
    magic = file.read(framing.START)
    if magic != framing.MAGIC:
        if framing.MAGIC.startswith(magic):
            raise EmptyLog(f"nothing has been written to {path} yet")
        if magic[:-1] == framing.MAGIC[:-1]:
            raise NewerLog(f"{path} has log format version {magic[-1]}, written by a newer SDK")
        raise NotALog(f"{path} is not a W&B log")
    if start.offset == 0:
        return Position(framing.START)
    if framing.stored_crc(file, start.last, start.offset) != start.crc:
        raise ReplacedLog(f"{path} is not the file that was read before")
    return start


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LogError(f"cannot read {path}: {error.strerror or error}") from error


class _Decoder:
    """Records -> windows; what lasts from one window to the next is the numbering of the keys."""

    def __init__(self) -> None:
        self.keys = Keys()

    def window(self, found: framing.Frames, origin: int, position: Position, gaps: list[Gap]) -> Window:
        if found.records and found.ends[-1] - origin >= VECTOR_FROM:
            with contextlib.suppress(vector.Unproven, wire.DecodeError):
                return self._many(found, position, gaps)
        return self._few(found, origin, position, gaps)

    def _few(self, found: framing.Frames, origin: int, position: Position, gaps: list[Gap]) -> Window:
        """The plain path: record after record. It stands for what is right; _many is to give the same."""
        history = Table(self.keys)
        others = _Others(self.keys)
        bad = []
        start = origin
        for record, end in zip(found.records, found.ends, strict=True):
            try:
                envelope = wire.Record.FromString(record)
                name = envelope.WhichOneof("record_type")
                payload = getattr(envelope, name) if name else b""
                if name == "history":
                    history.add(*history_row(payload))
                elif name and not (name == "summary" and _derived(payload, envelope.HasField("_info"))):
                    others.add(name, payload, len(history.steps))
            except wire.DecodeError:
                bad.append(Gap(start, end, "not a record"))
            start = end
        return others.window(history.rows(), position, (*gaps, *bad))

    def _many(self, found: framing.Frames, position: Position, gaps: list[Gap]) -> Window:
        """The fast path: all records at once, and one by one what it finds odd. Raises Unproven, DecodeError."""
        records = vector.records(found.records)
        wanted = np.flatnonzero(~records.derived)
        field, lo, hi = records.field[wanted], records.lo[wanted].tolist(), records.hi[wanted].tolist()
        payload = [records.data[a:b] for a, b in zip(lo, hi, strict=True)]
        is_history = field == _HISTORY
        is_output = np.isin(field, _OUTPUT)
        rows_before = np.cumsum(is_history).tolist()

        others = _Others(self.keys)
        for i in np.flatnonzero(~(is_history | is_output)).tolist():
            others.add(_NAMES.get(field[i], ""), payload[i], rows_before[i])
        output = np.flatnonzero(is_output).tolist()
        pieces = vector.printed([payload[i] for i in output])
        others.printed = list(zip(map(rows_before.__getitem__, output), *pieces, strict=True))

        rows = [payload[i] for i in np.flatnonzero(is_history).tolist()]
        values = vector.history(rows, self.keys)
        more = Table(self.keys)
        places = np.flatnonzero(values.odd)
        for i in places.tolist():
            more.add(*history_row(rows[i]))
        for i, items in values.apart.items():
            more.add(cells_of(items), int(values.steps[i]))
        places = np.concatenate([places, np.fromiter(values.apart, np.int64)])
        return others.window(vector.merged(values, more.rows(), places), position, tuple(gaps))


class _Others:
    """What a window says besides the history, under construction."""

    def __init__(self, keys: Keys) -> None:
        self.system = Table(keys)
        self.printed: list[tuple[int, bool, float | None, str]] = []
        self.events: list[Event] = []

    def add(self, name: str, payload: bytes, rows_before: int) -> None:
        """Take in a record; DecodeError if it is not one."""
        if name in ("output_raw", "output"):
            message = wire.OutputRecord.FromString(payload)
            time = wire.seconds(message.timestamp) if message.HasField("timestamp") else None
            text = message.line.decode("utf-8", "replace")
            self.printed.append((rows_before, message.output_type != 0, time, text))
        elif name == "stats":
            self.system.add(system_row(payload), None)
        elif name in wire.EVENTS:
            self.events.append(Event(rows_before, name, wire.EVENTS[name].FromString(payload)))

    def window(self, history: Rows, position: Position, gaps: tuple[Gap, ...]) -> Window:
        return Window(history, self.system.rows(), _joined(self.printed), self.events, position, gaps)


def _joined(writes: list[tuple[int, bool, float | None, str]]) -> list[Printed]:
    """Writes (rows before, to stdout, time, text), of which a single print() makes several, as lines where possible."""
    printed: list[Printed] = []
    texts: list[str] = []
    place, at = (0, False), None
    for rows_before, stdout, time, text in writes:
        if place != (rows_before, stdout):
            if texts:
                printed.append(Printed(place[0], _STREAMS[place[1]], at, "".join(texts)))
                texts = []
            place = rows_before, stdout
        at = time
        texts.append(text)
        if text[-1:] == "\n":
            printed.append(Printed(rows_before, _STREAMS[stdout], at, "".join(texts)))
            texts = []
    if texts:
        printed.append(Printed(place[0], _STREAMS[place[1]], at, "".join(texts)))
    return printed


def _derived(payload: bytes, has_info: bool) -> bool:
    """Whether wandb-core derived this summary from the history, as it does twice per row: nothing new, and much of it.

    What a user sets has an _info. The Python service (before SDK 0.18) has no _info in some versions and writes one
    whole summary at the end; its items start with a key, those of wandb-core with a nested key.
    """
    return not has_info and _NESTED_FIRST(payload) is not None
