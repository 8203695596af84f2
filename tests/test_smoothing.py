"""The smoothings against the plainest loops that say the same."""

from __future__ import annotations

import math
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wandbsync.plot.stats.ema import EVEN, rolling_mean, time_weighted_ema
from wandbsync.plot.stats.sums import Rows

WEIGHTS = (0.0, 1e-300, 1e-30, 0.1, 0.5, 0.9, 0.99, 0.999, 0.999999, 1.0)
LARGEST = sys.float_info.max
VALUES = st.floats(-1e300, 1e300) | st.floats(-10, 10) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e300])


def loop_ema(x, y, weight, viewport_scale=1000.0):
    """The predecessor's loop over the finite points; also the same average of |y|, to measure errors against."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(b) and math.isfinite(a)]
    out, sizes = [math.nan] * len(y), [math.nan] * len(y)
    if not points:
        return out, sizes
    span = float(max(a for a, _ in points) - min(a for a, _ in points)) or 1.0
    last = size = total = 0.0
    previous = points[0][0]
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        if not (math.isfinite(b) and math.isfinite(a)):
            continue
        factor = weight ** (max(float(a - previous), 0.0) / span * viewport_scale)
        previous = a
        last, size, total = last * factor + b, size * factor + abs(b), total * factor + 1.0
        out[i], sizes[i] = last / total, size / total
    return out, sizes


def agree(got, want, sizes, tolerance=1e-9):
    got, want, sizes = np.asarray(got), np.asarray(want), np.asarray(sizes)
    assert got.shape == want.shape
    assert np.array_equal(np.isnan(got), np.isnan(want))
    known = ~np.isnan(want)
    # Where values cancel, the loop itself is only as good as the size of what it adds up. Beside values near the end of
    # the number line everything is scaled down by 2**64, and what is 580 orders smaller loses digits.
    nothing = 1e-303 if np.nanmax(sizes, initial=0.0) > 1e280 else 1e-322
    assert (np.abs(got - want)[known] <= tolerance * sizes[known] + nothing).all()


@st.composite
def series(draw):
    n = draw(st.integers(1, 200))
    steps = {
        "equal": st.just(1),
        "irregular": st.integers(0, 50),
        "back": st.integers(-5, 50),
        "long": st.sampled_from([0, 1, 10**6, 2**40]),
    }[draw(st.sampled_from(["equal", "irregular", "back", "long"]))]
    x = np.cumsum(draw(st.lists(steps, min_size=n, max_size=n))) + draw(st.sampled_from([0, 10**9, -7]))
    y = np.array(draw(st.lists(VALUES, min_size=n, max_size=n)))
    return (x * 0.1 if draw(st.booleans()) else x), y


@settings(max_examples=400, deadline=None)
@given(series(), st.sampled_from(WEIGHTS), st.sampled_from([1000.0, 1.0, 0.0, 1e6]))
@example((np.arange(3), np.array([1e-300, 1e300, 1e-300])), 0.5, 1000.0)
@example((np.arange(300), np.array([1e-300] * 299 + [1e300])), 0.9, 1000.0)
def test_ema_is_the_plain_loop(xy, weight, scale):
    x, y = xy
    got = time_weighted_ema(x, y, weight=weight, viewport_scale=scale)
    agree(got, *loop_ema(x.tolist(), y.tolist(), weight, scale))


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("kind", ["equal", "irregular", "repeated", "float", "time", "constant", "back", "gap"])
def test_ema_is_the_plain_loop_over_many_chunks(weight, kind):
    rng = np.random.default_rng(7)
    n = 40_000
    x = {
        "equal": np.arange(n),
        "irregular": np.cumsum(rng.integers(1, 100, n)),
        "repeated": np.sort(rng.integers(0, 300, n)),
        "float": np.cumsum(rng.random(n)),
        "time": 1.7e9 + np.cumsum(rng.random(n)),
        "constant": np.full(n, 7),
        "back": np.cumsum(rng.integers(-3, 10, n)),
        "gap": np.r_[np.arange(n // 2), 10**7 + np.arange(n // 2)],
    }[kind]
    y = np.abs(rng.normal(size=n)) * 10.0 ** rng.integers(-30, 30, n)
    want, sizes = loop_ema(x.tolist(), y.tolist(), weight)
    agree(time_weighted_ema(x, y, weight=weight), want, sizes)
    y[rng.random(n) < 0.1] = np.nan
    y[::1000] = np.inf
    agree(time_weighted_ema(x, y, weight=weight), *loop_ema(x.tolist(), y.tolist(), weight))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5_000), st.sampled_from([0.0, 1e-30, 0.3, 0.99, 0.999999, 1.0]), st.integers(0, 9))
def test_sums_that_do_not_wait_are_those_that_do(n, weight, seed):
    values = np.random.default_rng(seed).normal(size=n)
    want, last = [], 0.5
    for value in values.tolist():
        want.append(last + value)
        last = want[-1] * weight
    got = np.empty(n)
    Rows(weight).sums(values, 0.5, got)
    assert np.allclose(got, want, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.99])
@pytest.mark.parametrize("jump", [0, 1, 17, 10**9])
def test_ema_of_even_stretches_with_a_jump_between(weight, jump):
    """A run that was resumed: the same distance between steps before and after, but not at one place."""
    x = np.arange(3 * EVEN)
    x[EVEN + 77 :] += jump
    x[2 * EVEN :] = x[2 * EVEN] + 3 * np.arange(EVEN)
    y = np.cumsum(np.random.default_rng(3).normal(size=len(x)))
    want, sizes = loop_ema(x.tolist(), y.tolist(), weight)
    agree(time_weighted_ema(x, y, weight=weight), want, sizes)


def test_ema_by_hand():
    # Range 2, scale 2: one unit of x is one power of the weight.
    got = time_weighted_ema([0, 1, 2], [1.0, 2.0, 4.0], weight=0.5, viewport_scale=2)
    assert got.tolist() == pytest.approx([1.0, 2.5 / 1.5, 5.25 / 1.75])


def test_a_bad_point_is_as_if_never_logged():
    x, y = np.arange(100), np.sin(np.arange(100.0))
    bad = np.isin(x, [0, 17, 18, 99])
    y[bad] = [np.nan, np.inf, -np.inf, np.nan]
    got = time_weighted_ema(x, y, weight=0.9)
    assert np.isnan(got[bad]).all()
    assert got[~bad].tolist() == time_weighted_ema(x[~bad], y[~bad], weight=0.9).tolist()
    rolled = rolling_mean(y, 10)
    assert np.isnan(rolled[bad]).all()
    assert rolled[~bad].tolist() == rolling_mean(y[~bad], 10).tolist()


def test_ema_of_a_step_back_counts_no_distance():
    back = time_weighted_ema([0, 10, 5, 10], [1.0, 2.0, 3.0, 4.0], weight=0.9, viewport_scale=10)
    agree(back, *loop_ema([0, 10, 5, 10], [1.0, 2.0, 3.0, 4.0], 0.9, 10))
    assert back[2] == pytest.approx((0.9**10 + 2 + 3) / (0.9**10 + 1 + 1))


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.uint8, np.float32])
def test_ema_takes_any_number_type(dtype):
    x = np.array([0, 1, 5, 200], dtype=dtype)
    agree(
        time_weighted_ema(x, np.array([1, 2, 3, 4]), weight=0.99),
        *loop_ema([0, 1, 5, 200], [1.0, 2.0, 3.0, 4.0], 0.99),
    )


def test_ema_at_the_ends_of_the_number_line():
    ends = [-(2**63), 0, 2**63 - 1]
    agree(
        time_weighted_ema(np.array(ends), [1.0, 2.0, 4.0], weight=0.5, viewport_scale=2),
        *loop_ema(ends, [1.0, 2.0, 4.0], 0.5, 2),
    )
    neighbours = np.array([2**62, 2**62 + 1, 2**62 + 2])  # equal as float64
    assert time_weighted_ema(neighbours, [1.0, 2.0, 4.0], weight=0.5, viewport_scale=2).tolist() == pytest.approx(
        [1.0, 2.5 / 1.5, 5.25 / 1.75]
    )
    assert np.isfinite(time_weighted_ema([-1.7e308, 1.7e308], [1.7e308, 1.7e308], weight=0.99)).all()
    assert time_weighted_ema([0, 1, 2], [5e-324] * 3, weight=0.99).tolist() == [5e-324] * 3


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_largest_numbers_are_smoothed_like_small_ones(weight):
    y = np.where(np.arange(2000) % 3, 1.0, -1.0)
    x = np.arange(2000)
    for smooth in (lambda y: time_weighted_ema(x, y, weight=weight), lambda y: rolling_mean(y, 7)):
        assert smooth(y * LARGEST).tolist() == pytest.approx((smooth(y) * LARGEST).tolist(), rel=1e-9, abs=1e294)
        for constant in (LARGEST, -LARGEST, 5e-324):
            assert set(smooth(np.full(2000, constant)).tolist()) == {constant}


def test_a_constant_stays_exactly_constant():
    y = np.full(50_000, 0.1)
    assert set(time_weighted_ema(np.arange(50_000), y, weight=0.99).tolist()) == {0.1}
    assert set(rolling_mean(y, 1000).tolist()) == {0.1}


def test_nothing_in_nothing_out():
    assert time_weighted_ema([], [], weight=0.99).tolist() == []
    assert rolling_mean([], 5).tolist() == []
    assert np.isnan(time_weighted_ema([1, 2], [np.nan, np.inf], weight=0.99)).all()
    assert np.isnan(rolling_mean([np.nan, -np.inf], 5)).all()


@pytest.mark.parametrize("wrong", [{"weight": -0.1}, {"weight": 1.1}, {"weight": math.nan}])
def test_ema_refuses_a_weight_that_is_none(wrong):
    with pytest.raises(ValueError, match="weight"):
        time_weighted_ema([1], [1.0], **wrong)


def test_ema_refuses_odd_shapes():
    with pytest.raises(ValueError, match="length"):
        time_weighted_ema([1, 2], [1.0], weight=0.9)
    with pytest.raises(ValueError, match="viewport_scale"):
        time_weighted_ema([1], [1.0], weight=0.9, viewport_scale=-1)
    with pytest.raises(ValueError, match="window"):
        rolling_mean([1.0], 0)


def loop_mean(y, window):
    """Exact, in fractions; and the mean of |y|."""
    kept, out, sizes = [], [], []
    for value in y:
        if math.isfinite(value):
            kept.append(Fraction(value))
            tail = kept[-window:]
            out.append(float(sum(tail) / len(tail)))
            sizes.append(float(sum(map(abs, tail)) / len(tail)))
        else:
            out.append(math.nan)
            sizes.append(math.nan)
    return out, sizes


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES | st.sampled_from([LARGEST, -LARGEST]), max_size=60), st.integers(1, 70))
def test_rolling_mean_is_the_exact_mean(y, window):
    agree(rolling_mean(y, window), *loop_mean(y, window), tolerance=1e-13)


def test_rolling_mean_keeps_its_digits():
    rng = np.random.default_rng(1)
    noise = rng.integers(-1000, 1000, 1_000_000) / 1024.0  # exact beside the offset
    got = rolling_mean(noise + 1e9, 1000)
    cut = np.cumsum(noise * 1024).astype(np.int64)  # exact: integers
    want = (cut - np.r_[np.zeros(1000, np.int64), cut[:-1000]]) / np.minimum(np.arange(1, 1_000_001), 1000) / 1024
    assert np.abs(got - 1e9 - want).max() < 2e-5  # 1e9 has an ulp of 1.2e-7
    spiked = np.ones(1000)
    spiked[100] = 1e200
    assert rolling_mean(spiked, 7)[107:].tolist() == [1.0] * 893


def test_a_million_points_take_no_time():
    x, y = np.arange(1_000_000), np.random.default_rng(0).normal(size=1_000_000)
    for weight in (0.99, 0.5, 1e-30, 0.0):
        start = time.perf_counter()
        time_weighted_ema(x, y, weight=weight)
        rolling_mean(y, 1000)
        assert time.perf_counter() - start < 5.0  # some 0.05 s; the bound is for a machine at work
