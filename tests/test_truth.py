"""The line that is drawn by default lies on its data, whatever these are."""

from __future__ import annotations

import numpy as np
import pytest
import truth
from hypothesis import given, settings
from hypothesis import strategies as st

from wandbsync.plot import PlotOptions
from wandbsync.plot.stats import centred
from wandbsync.plot.stats.smoothing import METHODS, NAMES, Chart, named

KINDS = truth.kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_line_lies_on_its_data(kind):
    assert truth.of_values(*KINDS[kind]) <= truth.ALLOWED


def test_a_line_beside_its_data_is_found():
    x, y = KINDS["loss/llm"]
    assert truth.of_values(x, y, PlotOptions(ema_weight=0.99)) > 0.1
    assert truth.of_values(*KINDS["lr/cosine"], PlotOptions(smoothing="time-weighted")) > 0.5


@settings(max_examples=60, deadline=None)
@given(
    st.integers(200, 4_000),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 7, 1000]),
    st.floats(0.0, 3.0),
    st.booleans(),
)
def test_whatever_was_logged(n, seed, apart, heavy, jumps):
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.integers(0, apart + 1, n))
    y = np.exp(heavy * rng.normal(size=n)) * rng.choice([-1, 1], n) + rng.normal(size=n).cumsum() * rng.choice([0, 0.1])
    y += np.where(x > np.median(x), 1e3, 0.0) if jumps else 0.0
    assert truth.of_values(x, y) <= truth.ALLOWED


@pytest.mark.parametrize(
    "kind", ["few/250", "lr/cosine", "lr/steps", "saw/exact", "steps/exact", "eval/acc", "constant"]
)
def test_few_and_smooth_values_are_drawn_as_they_are(kind):
    y = KINDS[kind][1]
    assert centred.smooth_as_logged(y[:199] if kind.startswith("few") else y)


def test_long_noisy_values_are_smoothed_as_widely_as_an_ema_of_99():
    rng = np.random.default_rng(0)
    x, y = np.arange(20_000), rng.normal(size=20_000)
    at, line = centred.centred_mean(x, y)
    middle = line[(at > 4_000) & (at < 16_000)]
    assert middle.std() < 1.5 / np.sqrt(0.199 * 20_000), "so many values count"
    assert abs(line[0]) < 0.2 and abs(line[-1]) < 0.2
    slope = x * 1e-3 + y * 0.1
    at, line = centred.centred_mean(x, slope)
    assert np.abs(line - at * 1e-3).max() < 0.1, "its ends do not drift"


def test_a_hole_is_a_hole():
    x, y = KINDS["loss/holes"]
    at, line = centred.centred_mean(x, y)
    known = np.isfinite(y)
    assert np.array_equal(np.isfinite(line), known[np.searchsorted(x, at)])


def test_the_part_that_is_looked_at_is_smoothed_by_its_own_width():
    x, y = KINDS["loss/llm"]
    auto = METHODS["auto"]
    assert auto.seen(x, y, 0.0, Chart(6_000.0, x=(0.0, 100.0))) is None, "few are as they are"
    part = auto.seen(x, y, 0.0, Chart(6_000.0, x=(1_000.0, 3_000.0)))
    assert 990 <= part.x[0] <= 1_010 and 2_990 <= part.x[-1] <= 3_010
    log = auto.seen(np.append(-1, x), np.append(7.0, y), 0.0, Chart(6_000.0, log_x=True))
    assert log.x[0] == pytest.approx(1.0) and log.x[-1] == pytest.approx(5_999.0)


@pytest.mark.parametrize("name", METHODS)
def test_every_smoothing_is_whole(name):
    """What it is called, what it says and what it draws are one entry: a name without a line cannot be."""
    method = METHODS[name]
    value = 5.0 if method.default is None and method.flag == "--smooth" else method.default or 0.0
    x = np.arange(400)
    y = x + 0.4 * np.random.default_rng(0).normal(size=400)
    line = method.line(x, y, value, Chart(399.0))
    assert method.text(value) and (line is None or len(line) == 400)
    late = line is not None and (y - line)[150:250].mean() > 1.0
    assert late == method.lags, "what looks back only says so"


@pytest.mark.parametrize("words", ["median", "ema:", "ema:x", "ema:1", "none:1", "auto:3", "running:1.5"])
def test_a_smoothing_that_is_none(words):
    with pytest.raises(ValueError):
        named(words)


def test_the_setting_is_the_default_and_no_more():
    assert PlotOptions().or_smoothing("time-weighted").how().text == "time-weighted EMA, smoothing 0.98, lags"
    assert PlotOptions().or_smoothing("ema:0.5").flags() == ["--smoothing", "ema:0.5"], "so that it can be drawn again"
    for asked in ({"smoothing": "auto"}, {"ema": False}, {"ema_weight": 0.5}, {"smooth": 9}, {"viewport_scale": 9.0}):
        assert PlotOptions(**asked).or_smoothing("ema") == PlotOptions(**asked)
    assert set(NAMES) == {"auto", "none", "time-weighted", "ema", "gaussian", "running"}


def test_noise_makes_no_kinks() -> None:
    """One value that is off by chance is no bend of the line, and no two corrections add up."""
    worst = []
    for seed in range(9):
        at = np.arange(1_000) / 1_000
        noise = 0.03 * np.random.default_rng(seed).standard_normal(len(at))
        line = centred.centred_mean(np.arange(1_000), 0.5 * np.exp(-2.0 * at) + 0.2 + noise)[1]
        worst.append(np.abs(np.diff(line, 2))[20:-20].max() / 0.03)
    assert np.median(worst) < 0.008
