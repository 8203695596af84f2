"""What a lake costs, beside Arrow that writes the same rows to a file, and Polars that reads the same table.

To a folder: an object store's distance comes on top. docs/lake.md has more, by `make lake-cost`.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from measured import Measured, turns

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.model import RunRef

METRICS, ROWS = 20, 50_000


def measure(room: Path, *, quick: bool = False) -> list[Measured]:
    """All of it, some seconds. `room` is an empty folder."""
    if any(importlib.util.find_spec(name) is None for name in ("deltalake", "polars")):
        print("lake: needs deltalake and polars, `pip install .[dev]`; left out", file=sys.stderr)
        return []
    import polars as pl
    from lake_cost import put

    from wandbsync.lake import address
    from wandbsync.lake.publish import publish
    from wandbsync.lake.read import Reader

    rows = ROWS // 5 if quick else ROWS
    millions = rows * METRICS / 1e6
    where = address.parse(str(room / "lake"))
    ref = RunRef("me", "demo", "long")
    with Cache(room / "cache") as cache:
        put(cache, "long", METRICS, 0, rows)
        table = pa.concat_tables(query.long(cache, [ref]))

        def anew() -> None:
            shutil.rmtree(room / "lake", ignore_errors=True)
            publish(cache, where, machine="bench")

        published, written = turns(anew, lambda: pq.write_table(table, room / "rows.parquet", compression="zstd"))
        unchanged = turns(lambda: publish(cache, where, machine="bench"))[0]
    history = str(room / "lake" / "history")
    chosen = (pl.col("run_id") == "long") & (pl.col("key") == "metric/7")

    def ours() -> None:
        with Reader(where) as reader:
            reader.series(reader.runs("me/demo", "long")[0], "metric/7")

    mine, polars = turns(ours, lambda: pl.scan_delta(history).filter(chosen).select("step", "value").collect())
    return [
        Measured(f"publish {millions:g} M values / Arrow writes the same rows to a file", published, written, "s", ""),
        Measured("publish again, nothing new", unchanged, None, "s", ""),
        Measured("one metric of one run, found and read / Polars reads its table", mine, polars, "s", ""),
    ]
