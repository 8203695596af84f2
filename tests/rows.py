"""Rows as plain Python, for tests of the cache: what was logged, as Columns and back."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from wandbsync.cache import Share
from wandbsync.model import HISTORY, Columns, Kind, RunRecord, RunRef

Row = tuple[str, int, int, float, "str | None"]  # key, step, kind, value (NaN where it is null), value_json

NAN = math.nan
RECORD = RunRecord("finished", "local", display_name="Tidy run", created_at=1_700_000_000.0, summary={})


def number(key: str, step: int, value: float) -> Row:
    return key, step, Kind.FLOAT, value, None


def text(key: str, step: int, json_text: str) -> Row:
    return key, step, Kind.JSON, NAN, json_text


def columns(rows: Sequence[Row]) -> Columns:
    names = list(dict.fromkeys(row[0] for row in rows))
    texts = [row[4] for row in rows]
    return Columns(
        names,
        np.array([names.index(row[0]) for row in rows], np.int32),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.float64),
        np.array([row[2] for row in rows], np.uint8),
        pa.array(texts, pa.large_string()) if any(one is not None for one in texts) else None,
        len({row[1] for row in rows}),
    )


def bits(value: float | None) -> str | None:
    """A float to the last bit, NaN as NaN: -0.0 is not 0.0, and null is not NaN."""
    return None if value is None else "nan" if math.isnan(value) else struct.pack(">d", value).hex()


def exact(rows: Iterable[Row]) -> list[tuple[Any, ...]]:
    """Rows as a segment keeps them: sorted by key and step, floats to the bit, null where a kind has no number."""
    return [
        (key, step, kind, bits(None if is_null(kind, value) else value), words)
        for key, step, kind, value, words in sorted(rows, key=lambda row: (row[0].encode(), row[1]))
    ]


def is_null(kind: int, value: float) -> bool:
    return kind in (Kind.NULL, Kind.JSON) or (kind == Kind.LINE and math.isnan(value))


def stored(table: pa.Table) -> list[tuple[Any, ...]]:
    """The rows of an Arrow table, as `exact` gives them."""
    names = ("key", "step", "kind", "value", "value_json")
    cells = zip(*(table.column(name).to_pylist() for name in names), strict=True)
    return [(key, step, kind, bits(value), words) for key, step, kind, value, words in cells]


def share(ref: RunRef, revision: int | None, rows: Sequence[Row], stream: str = HISTORY, **more: Any) -> Share:
    return Share(ref, revision, more.pop("record", RECORD), streams={stream: [columns(rows)]} if rows else {}, **more)
