"""What the catalog keeps of a metric equals a plain recompute of its rows, however they were split into commits."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wandbsync.cache.stats import Stat, measure, merge
from wandbsync.model import Kind

Row = tuple[int, int, float, "str | None"]  # step, kind, value, text

FLOATS = st.one_of(
    st.floats(),
    st.floats(-1, 1),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e-200, 1e300, -1e300, 1.7e308, -1.7e308]),
    st.integers(0, 9).map(lambda n: 1e15 + n * 0.125),
)
VALUES = st.one_of(
    st.tuples(st.just(Kind.FLOAT), FLOATS, st.none()),
    st.tuples(st.just(Kind.INT), st.integers(-(2**53), 2**53).map(float), st.none()),
    st.tuples(st.just(Kind.BOOL), st.sampled_from([0.0, 1.0]), st.none()),
    st.tuples(st.just(Kind.NULL), st.just(math.nan), st.none()),
    st.tuples(st.just(Kind.JSON), st.just(math.nan), st.sampled_from(['"a"', "[1,2]", "{}"])),
    st.integers(2**53 + 1, 2**200).map(lambda n: (Kind.BIGINT, float(n), str(n))),
    st.tuples(st.just(Kind.LINE), st.sampled_from([math.nan, 1.5]), st.sampled_from(["", "ok"])),
)
ROWS = st.lists(st.tuples(st.integers(-3, 12), VALUES).map(lambda r: (r[0], *r[1])), min_size=1, max_size=40)


def measured(groups: list[list[Row]]) -> list[Stat]:
    """`measure` of groups of rows, each sorted by step as a segment sorts them."""
    groups = [sorted(rows, key=lambda row: row[0]) for rows in groups]
    rows = [row for group in groups for row in group]
    starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
    step, kind, value, text = zip(*rows, strict=True)
    return list(
        measure(
            starts,
            np.array(step, np.int64),
            np.array(value, np.float64),
            np.array(kind, np.uint8),
            pa.array(text, pa.large_string()) if any(t is not None for t in text) else None,
        )
    )


def expected(rows: list[Row]) -> dict[str, Any]:
    """The same, the slow and obvious way; mean and variance in exact arithmetic."""
    rows = sorted(rows, key=lambda row: row[0])
    numeric = [v for _, k, v, _ in rows if k in (Kind.FLOAT, Kind.INT, Kind.BOOL, Kind.BIGINT)]
    finite = [v for v in numeric if math.isfinite(v)]
    given_rows = [row for row in rows if row[1] != Kind.NULL]
    edges = given_rows or rows
    result: dict[str, Any] = {
        "kinds": sum({1 << kind for _, kind, _, _ in rows}),
        "count": len(rows),
        "nulls": len(rows) - len(given_rows),
        "nans": sum(map(math.isnan, numeric)),
        "infinities": sum(map(math.isinf, numeric)),
        "numbers": len(finite),
        "min": min(finite, default=None),
        "max": max(finite, default=None),
        "first_step": edges[0][0],
        "last_step": edges[-1][0],
    }
    for name, row in (("first", edges[0]), ("last", edges[-1])):
        _, kind, value, text = row
        textual = kind in (Kind.JSON, Kind.NULL) or (kind == Kind.LINE and math.isnan(value))
        result[f"{name}_value"] = None if textual else value
        result[f"{name}_kind"] = kind if given_rows else None
        result[f"{name}_json"] = text if given_rows else None
    return result


def check(stat: Stat, rows: list[Row]) -> None:
    wanted = expected(rows)
    found = {name: getattr(stat, name) for name in wanted}
    assert repr_nan(found) == repr_nan(wanted)
    finite = [
        Fraction(v) for _, k, v, _ in rows if k in (Kind.FLOAT, Kind.INT, Kind.BOOL, Kind.BIGINT) and math.isfinite(v)
    ]
    assert stat.non_null == wanted["count"] - wanted["nulls"]
    if not finite:
        assert (stat.mean, stat.rest, stat.deviation, stat.std) == (None, None, None, None)
        return
    mean = sum(finite) / len(finite)
    top = max(map(abs, finite))
    assert stat.mean is not None and stat.rest is not None
    # Values may cancel: what a sum can promise is relative to the largest of them.
    assert abs(Fraction(stat.mean) - mean) <= top / 10**14 + Fraction(5e-324) * 9
    assert min(finite) <= Fraction(stat.mean) <= max(finite) or abs(Fraction(stat.mean) - mean) <= top / 10**14
    if len(finite) < 2:
        assert stat.std is None
        return
    variance = sum((v - mean) ** 2 for v in finite) / (len(finite) - 1)
    scale = max(abs(v - mean) for v in finite)
    if scale == 0:
        assert stat.std == 0.0
        return
    if scale * 2 > Fraction(1.7e308):
        return  # beyond float64: infinite, or the largest
    std = scale * Fraction(math.sqrt(variance / scale**2))
    assert stat.std is not None
    assert abs(Fraction(stat.std) - std) <= std / 10**9 + Fraction(5e-324) * 99


def repr_nan(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: "nan" if isinstance(value, float) and math.isnan(value) else value for name, value in fields.items()}


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_each_group_is_measured_alone(groups: list[list[Row]]) -> None:
    for stat, rows in zip(measured(groups), groups, strict=True):
        check(stat, rows)


@given(ROWS, st.lists(st.integers(0, 40), max_size=4))
def test_merged_batches_equal_a_recompute_of_all(rows: list[Row], marks: list[int]) -> None:
    total = Stat()
    for start, end in zip([0, *sorted(marks)], [*sorted(marks), len(rows)], strict=True):
        if rows[start:end]:
            total = merge(total, measured([rows[start:end]])[0])
    check(total, rows)


@given(ROWS, ROWS)
def test_nothing_merged_changes_nothing(one: list[Row], other: list[Row]) -> None:
    a, b = measured([one])[0], measured([other])[0]
    assert repr(merge(a, Stat())) == repr(a) == repr(merge(Stat(), a))
    assert merge(a, b).count == merge(b, a).count


def numbers(values: list[float], *, first_step: int = 0) -> list[Row]:
    return [(first_step + i, Kind.FLOAT, v, None) for i, v in enumerate(values)]


@pytest.mark.parametrize("offset", [0.0, 1e9, 1e15, -1e15, 4e15])
def test_a_small_spread_around_a_large_mean_survives_many_merges(offset: float) -> None:
    rows = numbers([offset + (i * 7919 % 97) * 0.5 for i in range(4000)])
    total = Stat()
    for start in range(0, len(rows), 10):
        total = merge(total, measured([rows[start : start + 10]])[0])
    check(total, rows)
    check(measured([rows])[0], rows)


@pytest.mark.parametrize("scale", [1e-320, 1e-250, 1e-160, 1.0, 1e160, 1e300, 5e307])
def test_squares_neither_overflow_nor_vanish(scale: float) -> None:
    rows = numbers([scale * x for x in (1.0, -1.0, 0.5, 0.25, 1.5, -2.0)])
    left, right = measured([rows[:2], rows[2:]])
    check(measured([rows])[0], rows)
    check(merge(left, right), rows)


@pytest.mark.parametrize("value", [0.1, 0.7, 1e15 / 3, -3.3e-9])
def test_one_value_over_and_over_has_no_spread(value: float) -> None:
    for count in (2, 3, 7, 49, 1000):
        rows = numbers([value] * count)
        for stat in (measured([rows])[0], merge(*measured([rows[: count // 2], rows[count // 2 :]]))):
            assert (stat.mean, stat.std, stat.min, stat.max) == (value, 0.0, value, value)


def test_round_numbers_have_round_spreads() -> None:
    for values, std in (([1.0, 2.0, 3.0], 1.0), ([0.0, 2.0, 4.0], 2.0), ([1.0, 3.0], math.sqrt(2))):
        assert measured([numbers(values)])[0].std == std


def test_a_very_long_group_keeps_its_digits() -> None:
    values = 1e12 + np.random.default_rng(1).normal(size=1_000_000)
    (stat,) = measure(np.array([0]), np.arange(len(values)), values, np.zeros(len(values), np.uint8), None)
    assert stat.mean == pytest.approx(1e12 + float((values - 1e12).mean()), rel=1e-15)
    assert stat.std == pytest.approx(float((values - 1e12).std(ddof=1)), rel=1e-12)


def test_of_equal_steps_the_first_and_the_last_to_come_count() -> None:
    early, late = measured([numbers([1.0, 2.0], first_step=5)])[0], measured([numbers([3.0, 4.0], first_step=5)])[0]
    assert (merge(early, late).first_value, merge(early, late).last_value) == (1.0, 4.0)
    assert (merge(late, early).first_value, merge(late, early).last_value) == (3.0, 2.0)


def test_none_has_no_say_in_first_and_last() -> None:
    nothing = measured([[(0, Kind.NULL, math.nan, None), (9, Kind.NULL, math.nan, None)]])[0]
    some = measured([numbers([7.0], first_step=4)])[0]
    assert (nothing.first_step, nothing.last_step, nothing.last_kind) == (0, 9, None)
    for both in (merge(nothing, some), merge(some, nothing)):
        assert (both.first_step, both.last_step, both.last_value, both.count, both.nulls) == (4, 4, 7.0, 3, 2)


def test_no_groups_give_nothing() -> None:
    none = np.empty(0, np.int64)
    assert list(measure(none, none, np.empty(0), np.empty(0, np.uint8), None)) == []
