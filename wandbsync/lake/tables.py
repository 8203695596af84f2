"""The tables of a lake: columns, partitions, what is known of each file.

`VISIBLE` is the documentation of the schema. Columns are added, never changed or taken away: a table of an older
wandbsync gains them when it is next written, and old rows have null there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cache.layout import ROWS, TABLES
from ..model import STREAMS

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import WriterProperties

Column = tuple[str, str, str]  # name, type as DuckDB calls it, meaning

SERVER: Column = ("server", "VARCHAR", "host of the W&B server; local@NAME for runs of a machine that no server has")
BUCKET: Column = ("bucket", "VARCHAR", "runs of a project, 256 each, as they were first published")
ROW_COLUMNS = [
    ("kind", "TINYINT", meaning) if name == "kind" else (name, kind, meaning) for name, kind, meaning in ROWS
]


def _in_lake(columns: list[Column], *more: Column) -> list[Column]:
    """The columns of a table of the cache, in the lake."""
    return [SERVER, *[column for column in columns if column[0] != "local_path"], *more]


COLUMNS: dict[str, list[Column]] = {
    "projects": _in_lake(
        TABLES["projects"][1],
        ("owner", "VARCHAR", "the cache that publishes it"),
        ("owner_name", "VARCHAR", "the machine of that cache"),
        ("heard_at", "TIMESTAMP", "UTC, when the owner was last heard of, to within an hour"),
    ),
    "runs": _in_lake(
        TABLES["runs"][1],
        BUCKET,
        ("gone_at", "TIMESTAMP", "UTC, when the owner no longer had it: renamed, or forgotten"),
        ("published_at", "TIMESTAMP", "UTC"),
        ("writer", "VARCHAR", "the cache that published it"),
        ("revision", "BIGINT", "of the run in that cache"),
        ("generation", "BIGINT", "of its rows there; -1: its rows were not there"),
        ("published", "VARCHAR", "JSON: stream -> how many of its values are in the lake, up to which step"),
    ),
    "metrics": _in_lake(
        TABLES["metrics"][1],
        BUCKET,
        ("path", "VARCHAR", "JSON: the nested names, where the key is more than one"),
        ("kinds", "BIGINT", "bit 1 << kind for every kind seen"),
        ("numbers", "BIGINT", "finite numbers"),
        ("rest", "DOUBLE", "what the last digit of mean leaves out"),
        ("deviation", "DOUBLE", "root mean square of the differences from the mean"),
        ("first_value", "DOUBLE", "the first that is not null"),
        ("first_kind", "BIGINT", ""),
        ("first_json", "VARCHAR", ""),
        ("last_kind", "BIGINT", ""),
    ),
    "files": _in_lake(TABLES["files"][1], BUCKET),
    **{stream: _in_lake(ROW_COLUMNS, BUCKET) for stream in STREAMS},
}
TITLES = {
    **{name: title for name, (title, _) in TABLES.items()},
    "history": "one row a logged value, every one of them",
    "system": "the same for machine metrics; step counts the samples, key _timestamp has their time",
    "console": "what was printed: key is stdout or stderr, step the line, value its time, value_json the text",
}
VISIBLE = {name: (TITLES[name], columns) for name, columns in COLUMNS.items()}
PARTITIONS = {name: ["server", "entity", "project", "bucket"] for name in COLUMNS} | {"projects": []}
# The columns whose least and greatest the log has for each file. Of no floating point: NaN is in no such range.
STATISTICS = {name: "run_id,key,step" if name in STREAMS else "run_id" for name in COLUMNS} | {
    "metrics": "run_id,key",
    "projects": "entity,project",
}
RETENTION = "interval 7 days"  # how long removed files stay for readers of older versions
FILE_BYTES = 128 << 20
ROW_GROUP = 131_072


def schema(name: str) -> pa.Schema:
    """The columns of a table as Arrow has them."""
    import pyarrow as pa

    kinds = {
        "VARCHAR": pa.string(),
        "JSON": pa.string(),
        "BIGINT": pa.int64(),
        "INTEGER": pa.int64(),
        "TINYINT": pa.int8(),
        "DOUBLE": pa.float64(),
        "BOOLEAN": pa.bool_(),
        "TIMESTAMP": pa.timestamp("us", "UTC"),
        "VARCHAR[]": pa.list_(pa.string()),
    }
    return pa.schema([(column, kinds[kind]) for column, kind, _ in COLUMNS[name]])


def configuration(name: str) -> dict[str, str | None]:
    """The properties of a new table."""
    return {
        "delta.dataSkippingStatsColumns": STATISTICS[name],
        "delta.deletedFileRetentionDuration": RETENTION,
        "delta.logRetentionDuration": "interval 30 days",
        "delta.checkpointInterval": "20",
        "delta.targetFileSize": str(FILE_BYTES),
    }


def writing(name: str) -> WriterProperties:
    """How its Parquet files are encoded; as the cache's segments, and again without statistics of numbers."""
    from deltalake import ColumnProperties, WriterProperties

    special = {
        column: ColumnProperties(statistics_enabled="NONE", dictionary_enabled=False, encoding="BYTE_STREAM_SPLIT")
        for column, kind, _ in COLUMNS[name]
        if kind == "DOUBLE"
    }
    if name in STREAMS:
        special["step"] = ColumnProperties(dictionary_enabled=False, encoding="DELTA_BINARY_PACKED")
        special["value_json"] = ColumnProperties(statistics_enabled="NONE")
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        max_row_group_size=ROW_GROUP,
        statistics_truncate_length=4096,  # a range that was cut short may leave out a long key
        column_properties=special,
    )
