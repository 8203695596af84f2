"""Bytes of a `.wandb` log -> whole records.

Three words. A *block* is 32 KiB of the file, counted from offset 0 (or from 7, the length of the file header, in logs
of some wandb-core versions: the *base*). A *chunk* is crc32 (4 bytes), length (2), type (1) and a payload; it never
crosses a block, and less than a chunk header at the end of a block is padding. A *record* is the payload of one FULL
chunk, or of a FIRST, any MIDDLEs and a LAST. This is LevelDB's log with a plain CRC-32 over type and payload.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO
from zlib import crc32

BLOCK = 32768
BASES = (0, 7)
MAGIC = b":W&B\xe1\xbe\x00"
START = len(MAGIC)  # where the first chunk is

FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
_CHUNK = struct.Struct("<IHB")
_HEADER = _CHUNK.size
_SEED = [crc32(bytes([kind])) for kind in range(5)]


@dataclass(frozen=True, slots=True)
class Frames:
    """The whole records in a piece of a log.

    records: their bytes; ends: the file offset of the end of each (same length).
    last, crc: file offset and stored crc of the last chunk of the last record.
    stop: file offset of the first chunk that was not used up; problem: what is wrong with it, "" if the data ran out.
    """

    records: list[bytes]
    ends: list[int]
    last: int
    crc: int
    stop: int
    problem: str


def frames(data: bytes, origin: int, base: int) -> Frames:
    """Cut `data`, read from file offset `origin` (the start of a chunk), into records. Every chunk's CRC is checked."""
    records: list[bytes] = []
    ends: list[int] = []
    parts: list[bytes] = []
    last = crc_of_last = 0
    problem = ""
    at, size = 0, len(data)
    block_end = BLOCK - (origin - base) % BLOCK
    chunk, check, seed = _CHUNK.unpack_from, crc32, _SEED  # local names: this loop runs a million times per 100 MB
    while True:
        start = at + _HEADER
        if start > block_end:
            if any(data[at:block_end]):  # a chunk starts here if the base is another
                problem = "padding that is not empty"
                break
            at = block_end
            start = at + _HEADER
            block_end += BLOCK
        if start > size:
            break
        crc, length, kind = chunk(data, at)
        end = start + length
        if end > block_end or not FULL <= kind <= LAST:
            problem = "not a chunk"
            break
        if end > size:
            break
        payload = data[start:end]
        if check(payload, seed[kind]) != crc:
            problem = "wrong checksum"
            break
        if kind == FULL and not parts:
            records.append(payload)
        elif (kind in (FULL, FIRST)) == bool(parts):
            problem = "record without its end" if parts else "record without its start"
            break
        else:
            parts.append(payload)
            if kind != LAST:
                at = end
                continue
            records.append(b"".join(parts))
            parts = []
        ends.append(origin + end)
        last, crc_of_last = at, crc
        at = end
    return Frames(records, ends, origin + last, crc_of_last, origin + at, problem)


def resync(file: BinaryIO, bad: int, base: int) -> tuple[int, int] | None:
    """Where, after the bad chunk at offset `bad`, a record starts: its offset and the base; None if nowhere.

    Tried in turn: the bad chunk's own end, if only its content is damaged, and then every block boundary, of both bases
    while the base is the usual one. A checksum that fits is proof enough: by chance it does so once in 4 billion.
    """
    file.seek(0, 2)
    size = file.tell()
    own = (bad + _HEADER + _peek(file, bad)[1], base)
    bases = BASES if base == 0 else (base,)
    first = bad - (bad - base) % BLOCK + BLOCK
    boundaries = ((block + b - base, b) for block in range(first, size, BLOCK) for b in bases)
    for start, its_base in chain([(bad, base), own], boundaries):
        for offset, kind in _chunks(file, start, its_base):
            if kind in (FULL, FIRST):
                return offset, its_base
    return None


def skipped(file: BinaryIO, start: int, base: int) -> Frames | None:
    """No records, but where the one that begins at `start` stops; None if its end is not there, or damaged."""
    for offset, kind in _chunks(file, start, base):
        if kind in (FULL, LAST):
            crc, length, _ = _peek(file, offset)
            return Frames([], [], offset, crc, offset + _HEADER + length, "")
    return None


def stored_crc(file: BinaryIO, offset: int, end: int) -> int | None:
    """The crc of the chunk at `offset` if that is sound and reaches to `end`, else None."""
    crc, length, kind, payload = _read(file, offset)
    sound = len(payload) == length and FULL <= kind <= LAST and crc32(payload, _SEED[kind]) == crc
    return crc if sound and offset + _HEADER + length == end else None


def _chunks(file: BinaryIO, offset: int, base: int) -> Iterator[tuple[int, int]]:
    """Offset and kind of the sound chunks from `offset` on, up to the first that is not."""
    while True:
        room = BLOCK - (offset - base) % BLOCK
        if room < _HEADER:
            offset += room
            continue
        crc, length, kind, payload = _read(file, offset)
        if len(payload) < length or _HEADER + length > room or not FULL <= kind <= LAST:
            return
        if crc32(payload, _SEED[kind]) != crc:
            return
        yield offset, kind
        offset += _HEADER + length


def _peek(file: BinaryIO, offset: int) -> tuple[int, int, int]:
    """crc, length and kind as they stand at `offset`; zeros at the end of the file."""
    file.seek(offset)
    crc, length, kind = _CHUNK.unpack(file.read(_HEADER).ljust(_HEADER, b"\0"))
    return crc, length, kind


def _read(file: BinaryIO, offset: int) -> tuple[int, int, int, bytes]:
    crc, length, kind = _peek(file, offset)
    return crc, length, kind, file.read(length)
