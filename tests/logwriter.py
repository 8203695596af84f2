"""Write `.wandb` logs for tests: any layout that an SDK ever used, and broken ones.

Records are encoded with the real schema (the SDK's own protobuf classes), one field at a time: the parts of a protobuf
message may be put in any order, which is how the writers differ.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

BLOCK = 32768
MAGIC = b":W&B\xe1\xbe\x00"

Path = tuple[str, ...]
TYPED = "number" in pb.HistoryItem.DESCRIPTOR.fields_by_name  # whether the installed SDK has typed values
NEW = ("core", "typed") if TYPED else ("core",)
WRITERS = ("old", "python", *NEW)  # SDK 0.10 to 0.13.6, to 0.17, since 0.18, and 0.31 with json,typed
ANY = (*WRITERS, "backwards")  # as no SDK does it, but protobuf allows it


def log(records: Iterable[bytes], base: int = 0) -> bytes:
    """The bytes of a log with these records."""
    return append(MAGIC, records, base)


def append(start: bytes, records: Iterable[bytes], base: int = 0) -> bytes:
    out = bytearray(start)
    for record in records:
        at, first = 0, True
        while True:
            left = BLOCK - (len(out) - base) % BLOCK
            if left < 7:
                out += bytes(left)
                left = BLOCK
            piece = record[at : at + left - 7]
            last = at + len(piece) == len(record)
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, last]
            crc = zlib.crc32(piece, zlib.crc32(bytes([kind])))
            out += struct.pack("<IHB", crc, len(piece), kind) + piece
            at, first = at + len(piece), False
            if last:
                break
    return bytes(out)


def record(writer: str, num: int, **payload: Any) -> bytes:
    """A Record as `writer` lays it out; payload is one of its fields, as bytes or as a message."""
    ((name, message),) = payload.items()
    content = message if isinstance(message, bytes) else message.SerializeToString()
    of_type = field(pb.Record.DESCRIPTOR.fields_by_name[name].number, content)
    if writer == "old":
        return of_type
    number = pb.Record(num=num).SerializeToString()
    info = _info() if name not in ("history", "stats") else b""
    if writer in NEW and name in ("history", "stats"):
        return number + of_type
    control = pb.Record(control=pb.Control(relay_id="relay")).SerializeToString()
    return number + control + info + of_type if writer in NEW else number + of_type + control + info


def derived_summary(num: int, cells: dict[Path, str]) -> bytes:
    """The summary that wandb-core writes of itself."""
    items = [pb.SummaryItem(nested_key=path, value_json=text) for path, text in cells.items()]
    return record_without_info(num, pb.SummaryRecord(update=items))


def record_without_info(num: int, summary: pb.SummaryRecord) -> bytes:
    return pb.Record(num=num, summary=summary).SerializeToString()


def history(writer: str, cells: Sequence[tuple[Path, str]], step: int | None) -> bytes:
    """A HistoryRecord of (path, JSON text) pairs; wandb-core nests keys, the others join them with dots."""
    items = b"".join(field(1, item(writer, path, text)) for path, text in cells)
    its_step = b"" if step is None else field(2, pb.HistoryStep(num=step).SerializeToString())
    return its_step + items if writer == "backwards" else items + its_step


def item(writer: str, path: Path, text: str) -> bytes:
    if writer in NEW:
        encoded = pb.HistoryItem(nested_key=path, value_json=text).SerializeToString()
        return encoded + typed(text) if writer == "typed" else encoded
    if writer == "backwards":
        return pb.HistoryItem(value_json=text).SerializeToString() + pb.HistoryItem(key=path[0]).SerializeToString()
    return pb.HistoryItem(key=".".join(path), value_json=text).SerializeToString()


def typed(text: str) -> bytes:
    """The typed value that goes with a JSON text."""
    try:
        value = json.loads(text)
    except ValueError:
        return b""
    if isinstance(value, bool):
        return pb.HistoryItem(boolean=value).SerializeToString()
    if isinstance(value, int) and abs(value) < 2**63:
        return pb.HistoryItem(integer=value).SerializeToString()
    if isinstance(value, float):
        return pb.HistoryItem(number=value).SerializeToString()
    if isinstance(value, str) and value.isascii():
        return pb.HistoryItem(text=value).SerializeToString()
    return (pb.HistoryItem(none=0) if value is None else pb.HistoryItem(json=text)).SerializeToString()


def row(step: int, **metrics: Any) -> list[tuple[Path, str]]:
    """The cells of a plain row, with the items that the SDK adds."""
    added = {"_step": step, "_timestamp": 1.7e9 + step / 3, "_runtime": step / 3}
    return [((key,), json.dumps(value)) for key, value in (metrics | added).items()]


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def _info() -> bytes:
    message = pb.Record()
    message._info.stream_id = "stream"
    return message.SerializeToString()
