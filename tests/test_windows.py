"""W&B's smoothings and groups of runs against the plainest loops that say the same."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_smoothing import agree, series

from wandbsync.plot import PlotOptions
from wandbsync.plot.groups import PLACES, combine, student95
from wandbsync.plot.stats import windows
from wandbsync.plot.stats.ema import ema, time_weighted_ema
from wandbsync.plot.stats.smoothing import Chart, Smoothing, named
from wandbsync.plot.stats.windows import gaussian, running_mean

NAN = math.nan


def finite(x, y):
    return [
        (i, float(a), b) for i, (a, b) in enumerate(zip(x, y, strict=True)) if math.isfinite(a) and math.isfinite(b)
    ]


def loop_gaussian(x, y, sigma):
    """Each point the mean of all, by their distance; and of the sizes, to measure errors against."""
    out, sizes = [NAN] * len(y), [NAN] * len(y)
    points = finite(x, y)
    scale = 2.0**64 if max((abs(b) for _, _, b in points), default=0.0) > 1e280 else 1.0  # or the sums overflow
    for i, here, _ in points:
        away = [(a - here) / sigma if sigma else (0.0 if a == here else math.inf) for _, a, _ in points]
        weights = [math.exp(-0.5 * d * d) for d in away]
        out[i] = math.fsum(w * b / scale for w, (_, _, b) in zip(weights, points, strict=True)) / math.fsum(weights)
        sizes[i] = math.fsum(w * abs(b) / scale for w, (_, _, b) in zip(weights, points, strict=True)) / math.fsum(
            weights
        )
        out[i], sizes[i] = out[i] * scale, sizes[i] * scale
    return out, sizes


@settings(max_examples=150, deadline=None)
@given(series(), st.sampled_from([0.0, 0.5, 3.0, 40.0, 1e4]), st.booleans())
def test_gaussian_is_the_plain_loop(xy, sigma, transform):
    x, y = xy
    x = x.astype(float) - float(np.min(x))
    few, windows.FEW = windows.FEW, 0 if transform else windows.FEW
    try:
        got = gaussian(x, y, sigma=sigma)
    finally:
        windows.FEW = few
    if sigma and (0 < np.ptp(x) * 1e-12 >= sigma or (transform and np.ptp(x) > 1e6 * sigma)):
        return  # a float64 does not tell its places apart well enough
    want, sizes = loop_gaussian(x, y, sigma)
    largest = max((abs(b) for _, _, b in finite(x, y)), default=0.0)
    # What is nine sigma away has a weight of less than 1e-17 and is left out.
    agree(got, want, [size + 1e-7 * largest for size in sizes])


def test_gaussian_over_many_cells_and_pieces(monkeypatch):
    monkeypatch.setattr(windows, "PIECE", 1000)
    rng = np.random.default_rng(0)
    x, y = np.cumsum(rng.integers(0, 5, 4_000)), rng.normal(size=4_000) * 1e6
    for sigma in (30.0, 300.0, 3e4):
        got = gaussian(x, y, sigma=sigma)
        for i in range(0, 4_000, 397):
            weights = np.exp(-0.5 * ((x - x[i]) / sigma) ** 2)
            assert got[i] == pytest.approx((weights * y).sum() / weights.sum(), abs=1e-9 * 1e6)


@settings(max_examples=150, deadline=None)
@given(series(), st.sampled_from([1, 2, 3, 10, 500]))
def test_running_mean_is_the_plain_loop(xy, points):
    _, y = xy
    known = finite(np.arange(len(y)), y)
    out, sizes = [NAN] * len(y), [NAN] * len(y)
    for k, (i, _, _) in enumerate(known):
        near = [b for _, _, b in known[max(k - points // 2, 0) : k + (points - 1) // 2 + 1]]
        out[i] = math.fsum(b / 2**10 for b in near) / len(near) * 2.0**10
        sizes[i] = math.fsum(abs(b) / 2**10 for b in near) / len(near) * 2.0**10
    agree(running_mean(y, points), out, sizes)


@settings(max_examples=150, deadline=None)
@given(series(), st.sampled_from([0.0, 0.5, 0.9, 0.999]))
def test_ema_is_tensorboards(xy, weight):
    _, y = xy
    out, sizes = [NAN] * len(y), [NAN] * len(y)
    last = size = 0.0
    for n, (i, _, b) in enumerate(finite(np.arange(len(y)), y), start=1):
        last, size = last * weight + (1 - weight) * b, size * weight + (1 - weight) * abs(b)
        out[i], sizes[i] = last / (1 - weight**n), size / (1 - weight**n)
    agree(ema(y, weight=weight), out, sizes)


def smoothed(x, y, how: Smoothing, span):
    return how.method.line(x, y, how.parameter, Chart(span, how.viewport))


def loop_wandb(x, y, parameter, span, viewport=1000.0):
    """W&B's published code, point by point."""
    weight = min(math.sqrt(parameter), 0.999)
    last = debias = 0.0
    out = []
    for i in range(len(x)):
        change = (x[i] - x[max(i - 1, 0)]) / span * viewport
        adjusted = weight**change
        last, debias = last * adjusted + y[i], debias * adjusted + 1
        out.append(last / debias)
    return out


@pytest.mark.parametrize("parameter", [0.0, 0.3, 0.98, 0.9999, 1.0])
def test_time_weighted_as_wandb_has_it(parameter):
    rng = np.random.default_rng(1)
    x, y = np.cumsum(rng.integers(0, 4, 3_000)), rng.normal(size=3_000)
    span = float(x[-1]) * 3  # another run in the chart is three times as long
    got = smoothed(x, y, named("time-weighted", parameter), span)
    assert np.allclose(got, loop_wandb(x.tolist(), y.tolist(), parameter, span), rtol=1e-9, atol=1e-12)


def test_what_the_options_mean():
    x, y = np.arange(50), np.sin(np.arange(50.0))

    def smooth(**options):
        return smoothed(x, y, PlotOptions(**options).how(), 49.0)

    usual = time_weighted_ema(x, y, weight=0.99)
    for options in ({"ema_weight": 0.99}, {"ema": True}, {"viewport_scale": 1000.0}):
        assert np.array_equal(smooth(**options), usual), "what asks for the predecessor's EMA"
    half = time_weighted_ema(x, y, weight=0.5, viewport_scale=20.0)
    assert np.array_equal(smooth(ema_weight=0.5, viewport_scale=20.0), half)
    assert smooth() is None, "few values are drawn as they are"
    assert np.array_equal(smooth(smoothing="ema:0.5"), ema(y, weight=0.5))
    assert np.array_equal(smooth(smoothing="ema", smoothing_param=0.5), ema(y, weight=0.5))
    assert np.array_equal(smooth(smoothing="running", smoothing_param=7), running_mean(y, 7))
    assert np.array_equal(smooth(smoothing="gaussian", smoothing_param=20), gaussian(x, y, sigma=0.02 * 49))
    assert smooth(smoothing="none") is None and smooth(ema=False) is None
    assert not np.array_equal(smooth(smoothing="time-weighted"), usual)


# --- groups


def test_a_group_at_common_places():
    members = [(np.array([0, 1, 2]), np.array([1.0, 2.0, 3.0])), (np.array([0, 2, 4]), np.array([3.0, 5.0, 7.0]))]
    group = combine(members, line="mean", bands=["minmax", "std", "sem"])
    assert group.x.tolist() == [0, 1, 2, 4] and group.count.tolist() == [2, 2, 2, 1]
    assert group.line.tolist() == [2.0, 3.0, 4.0, 7.0], "the second is at 4 in the middle; the first ends at 2"
    (low, high), (below, above), (less, more) = group.bands
    assert low.tolist() == [1, 2, 3, 7] and high.tolist() == [3, 4, 5, 7]
    assert below.tolist() == [1, 2, 3, 7] and above.tolist() == [3, 4, 5, 7]
    assert less[0] == pytest.approx(2 - 1 / math.sqrt(2)) and more[3] == 7


@pytest.mark.parametrize("line", ["mean", "median", "min", "max"])
@pytest.mark.parametrize("band", ["minmax", "std", "sem", "ci", "iqr"])
def test_statistics_are_those_of_the_textbook(line, band):
    rng = np.random.default_rng(4)
    values = rng.normal(size=(7, 5))
    group = combine([(np.arange(5), row) for row in values], line=line, bands=[band])
    for i, column in enumerate(values.T.tolist()):
        of = {"mean": statistics.fmean, "median": statistics.median, "min": min, "max": max}[line]
        assert group.line[i] == pytest.approx(of(column))
        middle, spread = statistics.fmean(column), statistics.pstdev(column)
        quartiles = statistics.quantiles(column, n=4, method="inclusive")
        low, high = {
            "minmax": (min(column), max(column)),
            "std": (middle - spread, middle + spread),
            "sem": (middle - spread / 7**0.5, middle + spread / 7**0.5),
            "ci": tuple(middle + s * 2.446911851 * statistics.stdev(column) / 7**0.5 for s in (-1, 1)),
            "iqr": (quartiles[0], quartiles[2]),
        }[band]
        assert (group.bands[0][0][i], group.bands[0][1][i]) == (pytest.approx(low), pytest.approx(high))


def test_student():
    known = {
        1: 12.70620474,
        2: 4.30265273,
        3: 3.18244631,
        4: 2.77644511,
        10: 2.22813885,
        30: 2.04227246,
        100: 1.98397152,
    }
    for freedom, value in known.items():
        assert student95(freedom) == pytest.approx(value, rel=1e-8)


def test_long_runs_are_counted_in_full_however_often_they_log():
    rng = np.random.default_rng(0)
    long, dense = np.arange(100_000), np.arange(0, 100_000, 0.25)
    a, b = rng.normal(size=len(long)) + 1.0, rng.normal(size=len(dense)) + 3.0
    group = combine([(long, a), (dense, b)], line="mean", bands=["minmax"])
    assert len(group.x) == PLACES and (group.count == 2).all()
    per = 100_000 // PLACES
    for i in (0, 500, 999):
        ours = a[i * per : (i + 1) * per].mean(), b[i * per * 4 : (i + 1) * per * 4].mean()
        assert group.line[i] == pytest.approx(sum(ours) / 2, abs=0.02), "every value, each run once"
    assert abs(group.line.mean() - 2.0) < 0.01


def test_what_does_not_count_in_a_group():
    gap = (np.array([0, 1, 2, 3]), np.array([1.0, NAN, math.inf, 4.0]))
    nothing = (np.array([0]), np.array([NAN]))
    group = combine([gap, nothing], line="mean", bands=["ci"])
    assert group.x.tolist() == [0, 3] and group.line.tolist() == [1, 4] and group.count.tolist() == [1, 1]
    assert np.isnan(group.bands[0]).all(), "one run has no confidence interval"
    assert len(combine([nothing], line="mean", bands=["std"]).x) == 0
    repeated = combine([(np.array([1, 1, 2]), np.array([1.0, 3.0, 5.0]))], line="mean", bands=[])
    assert repeated.x.tolist() == [1, 2] and repeated.line.tolist() == [2, 5]
