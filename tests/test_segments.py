"""Segments give back every value to the last bit, in order, and skip what nobody asked for."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows import NAN, Row, columns, exact, number, stored

from wandbsync.cache import segments
from wandbsync.errors import CacheError
from wandbsync.model import Kind

ODD_KEYS = ["", "loss", "val/loss", "a.b", "ключ", "🔥", "k" * 4500, "k" * 4500 + "2", "a\0b", '["a.b"]', " "]
ODD_FLOATS = [0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, float("inf"), -float("inf")]
VALUES = st.one_of(
    st.tuples(st.just(Kind.FLOAT), st.one_of(st.floats(), st.sampled_from([*ODD_FLOATS, NAN])), st.none()),
    st.tuples(st.just(Kind.INT), st.integers(-(2**53), 2**53).map(float), st.none()),
    st.tuples(st.just(Kind.BOOL), st.sampled_from([0.0, 1.0]), st.none()),
    st.tuples(st.just(Kind.NULL), st.just(NAN), st.none()),
    st.tuples(st.just(Kind.JSON), st.just(NAN), st.text().map(json.dumps)),
    st.integers(2**53 + 1, 10**60).map(lambda n: (Kind.BIGINT, float(n), str(n))),
    st.tuples(
        st.just(Kind.LINE),
        st.one_of(st.just(NAN), st.floats(0, 2e9)),
        st.text(st.characters(exclude_categories=["Cs"])),
    ),
)
ROWS = st.lists(
    st.tuples(st.sampled_from(ODD_KEYS), st.integers(-(2**63), 2**63 - 1) | st.integers(0, 5), VALUES).map(
        lambda row: (row[0], row[1], *row[2])
    ),
    min_size=1,
    max_size=50,
)


def write(path: Path, rows: list[Row], stream: int = 1) -> Path:
    path.unlink(missing_ok=True)
    segments.write(path, [segments.sort([segments.block(stream, columns(rows))])])
    return path


def read(path: Path, **which: object) -> list[tuple[object, ...]]:
    return [row for table in segments.read(path, **which) for row in stored(table)]  # type: ignore[arg-type]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_every_value_comes_back_to_the_last_bit(tmp_path: Path, rows: list[Row]) -> None:
    path = write(tmp_path / "x", rows)
    assert read(path) == exact(rows)
    again = [segments.to_block(table) for table in segments.read(path)]
    (tmp_path / "y").unlink(missing_ok=True)
    assert segments.write(tmp_path / "y", [segments.sort(again)]) == len(rows)
    assert read(tmp_path / "y") == exact(rows)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, parts=st.integers(1, 4), window=st.integers(1, 20))
def test_a_merge_in_windows_equals_one_segment_of_all(tmp_path: Path, rows: list[Row], parts: int, window: int) -> None:
    cut = -(-len(rows) // parts)
    paths = [write(tmp_path / f"part{i}", rows[i : i + cut]) for i in range(0, len(rows), cut)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "WINDOW", window)
        blocks = list(segments.merged(paths, [1]))
    heads = [{block.names[key] for key in block.key.tolist()} for block in blocks]
    assert sum(map(len, heads)) == len(set().union(*heads)), "a key is in one block only"
    (tmp_path / "all").unlink(missing_ok=True)
    segments.write(tmp_path / "all", blocks)
    assert read(tmp_path / "all") == exact(rows)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, keys=st.lists(st.sampled_from([*ODD_KEYS, "missing"]), max_size=3), size=st.integers(1, 9))
def test_asking_for_keys_is_filtering_all(tmp_path: Path, rows: list[Row], keys: list[str], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "ROW_GROUP", size)
        patch.setattr(segments, "OWN_GROUP", max(1, size // 2))
        path = write(tmp_path / "x", rows)
    assert read(path, keys=keys) == [row for row in exact(rows) if row[0] in keys]
    low, high = min(keys, default=""), max(keys, default="")
    assert read(path, between=(low, high)) == [row for row in exact(rows) if low <= row[0] <= high]
    assert read(path, streams=[1]) == exact(rows)
    assert read(path, streams=[2]) == []


def test_rows_are_sorted_by_key_then_stream_then_step(tmp_path: Path) -> None:
    rows = [number("b", 1, 1.0), number("a", 2, 2.0), number("a", 1, 3.0)]
    blocks = [segments.block(stream, columns(rows)) for stream in (7, 3)]
    segments.write(tmp_path / "x", [segments.sort(blocks)])
    (table,) = segments.read(tmp_path / "x")
    found = list(zip(*(table.column(name).to_pylist() for name in ("key", "stream", "step")), strict=True))
    assert found == [("a", 3, 1), ("a", 3, 2), ("a", 7, 1), ("a", 7, 2), ("b", 3, 1), ("b", 7, 1)]
    assert [t.column("stream").to_pylist() for t in segments.read(tmp_path / "x", streams=[7])] == [[7, 7, 7]]
    assert len(read(tmp_path / "x", streams=[3, 7])) == 6


def test_equal_steps_stay_in_the_order_they_were_logged(tmp_path: Path) -> None:
    rows = [number("a", 5, float(i)) for i in range(100)]
    assert [row[3] for row in read(write(tmp_path / "x", rows))] == [row[3] for row in exact(rows)]


def test_dictionary_of_a_part_does_not_leak_into_another(tmp_path: Path) -> None:
    parts = [segments.block(1, columns([number(key, 0, 1.0)])) for key in ("z", "a", "m")]
    segments.write(tmp_path / "x", [segments.sort(parts)])
    assert [row[0] for row in read(tmp_path / "x")] == ["a", "m", "z"]


@pytest.mark.parametrize(
    ("counts", "ends"),
    [
        ([], []),
        ([3], [3]),
        ([4], [4]),
        ([10], [10]),  # one row group of its own
        ([11], [10, 11]),
        ([25], [10, 20, 25]),
        ([4, 4], [8]),  # small keys share a row group
        ([4, 4, 4], [8, 12]),  # ... up to its size, cut between keys
        ([2, 6, 2], [2, 8, 10]),  # a large one gets its own
        ([2, 13, 2], [2, 12, 15, 17]),
        ([6, 6], [6, 12]),
        ([1] * 23, [10, 20, 23]),
    ],
)
def test_row_groups_are_cut(counts: list[int], ends: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "ROW_GROUP", 10)
    monkeypatch.setattr(segments, "OWN_GROUP", 5)
    assert segments.cuts(np.repeat(np.arange(len(counts), dtype=np.int32), counts)) == ends


def test_a_large_metric_has_row_groups_of_its_own(tmp_path: Path) -> None:
    rows = [number("small", i, 1.0) for i in range(10)] + [number("big", i, 1.0) for i in range(70_000)]
    file = pq.ParquetFile(write(tmp_path / "x", rows))
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    assert [(g.column(1).statistics.min, g.column(1).statistics.max, g.num_rows) for g in groups] == [
        ("big", "big", 70_000),
        ("small", "small", 10),
    ]


def test_what_was_not_asked_for_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "ROW_GROUP", 4)
    path = write(tmp_path / "x", [number(f"key{i:02}", step, 1.0) for i in range(40) for step in range(2)])
    asked: list[int] = []
    plain = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, i, **more: asked.append(i) or plain(self, i, **more)
    )
    assert [len(read(path, keys=[f"key{i:02}"])) for i in range(40)] == [2] * 40, "first and last of a row group too"
    asked.clear()
    assert len(read(path, keys=["key17"])) == 2
    assert len(asked) == 1
    assert read(path, streams=[99]) == [] and read(path, keys=["nope"]) == []
    assert len(asked) == 1
    assert len(read(path, between=("key10", "key13"))) == 8
    assert len(asked) == 3


def test_no_statistics_on_values_for_duckdb_to_trip_over(tmp_path: Path) -> None:
    rows = [number("a", 0, NAN), number("a", 1, 1.0), number("a", 2, float("inf")), ("a", 3, Kind.NULL, NAN, None)]
    path = write(tmp_path / "x", rows)
    group = pq.ParquetFile(path).metadata.row_group(0)
    with_statistics = {group.column(i).path_in_schema for i in range(6) if group.column(i).statistics}
    assert with_statistics == {"stream", "key", "step"}
    with duckdb.connect() as con:

        def steps(condition: str) -> list[int]:
            found = con.execute(f"SELECT step FROM read_parquet('{path}') WHERE {condition} ORDER BY step").fetchall()
            return [row[0] for row in found]

        assert steps("isnan(value)") == [0]
        assert steps("isinf(value)") == [2]
        assert steps("value IS NULL") == [3]
        assert steps("value > 1") == [0, 2]  # NaN is the greatest in DuckDB
        assert steps("value = 1") == [1]


def test_encodings_are_the_ones_measured(tmp_path: Path) -> None:
    group = pq.ParquetFile(write(tmp_path / "x", [number("a", i, i * 0.1) for i in range(100)])).metadata.row_group(0)
    assert "DELTA_BINARY_PACKED" in group.column(2).encodings
    assert "BYTE_STREAM_SPLIT" in group.column(3).encodings
    assert group.column(3).compression == "ZSTD"


def test_five_thousand_keys(tmp_path: Path) -> None:
    rows = [number(f"metric/{i}", step, i + step) for step in range(2) for i in range(5000)]
    path = write(tmp_path / "x", rows)
    assert read(path) == exact(rows)
    assert read(path, keys=["metric/4711"]) == exact([number("metric/4711", s, 4711 + s) for s in range(2)])
    assert segments.key_ranges([path]) == [("metric/0", "metric/999", 10_000)]


def test_keys_too_long_for_statistics_have_ranges_too(tmp_path: Path) -> None:
    rows = [number("k" * 10_000, 0, 1.0), number("a", 0, 1.0)]
    path = write(tmp_path / "x", rows)
    assert segments.key_ranges([path]) == [("a", "k" * 10_000, 2)]
    assert read(path, keys=["k" * 10_000]) == exact(rows)[1:]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], []),
        ([("a", "c", 5)], [("", "c")]),
        ([("a", "b", 5), ("c", "d", 5)], [("", "d")]),
        ([("a", "b", 10), ("c", "d", 10)], [("", "b"), ("b\0", "d")]),
        ([("a", "b", 10), ("b", "b", 10)], [("", "b")]),  # one key is never torn
        ([("a", "z", 10), ("a", "b", 3), ("c", "d", 9)], [("", "d"), ("d\0", "z")]),
        ([("", "", 10), ("a", "a", 1)], [("", ""), ("\0", "a")]),
    ],
)
def test_windows(ranges: list[tuple[str, str, int]], expected: list[tuple[str, str]]) -> None:
    assert list(segments.windows(ranges, 10)) == expected


def test_nothing_to_write_or_read(tmp_path: Path) -> None:
    assert segments.write(tmp_path / "x", []) == 0
    assert read(tmp_path / "x") == []
    assert len(segments.sort([])) == 0
    assert segments.sort([]).starts().tolist() == []


def test_a_segment_is_never_written_over(tmp_path: Path) -> None:
    path = write(tmp_path / "x", [number("a", 0, 1.0)])
    with pytest.raises(FileExistsError):
        segments.write(path, [])


def test_a_file_that_is_gone_says_so_and_a_damaged_one_too(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nowhere")
    path = write(tmp_path / "x", [number("a", i, i * 0.7) for i in range(5000)])
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"PAR1" + whole[4:-9] + b"\0" * 9):
        path.write_bytes(damaged)
        with pytest.raises(CacheError, match="cannot be read"):
            read(path)


def test_no_flipped_bit_is_ever_read_as_data(tmp_path: Path) -> None:
    rows = [number("a", i, i * 0.7) for i in range(500)]
    path = write(tmp_path / "x", rows)
    whole = path.read_bytes()
    for place in range(4, len(whole) - 8, 61):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            assert read(path) == exact(rows)
        except (CacheError, FileNotFoundError):
            continue
