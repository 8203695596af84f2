"""What is drawn is what was logged: pictures of many points against drawings of every single one."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from wandbsync.plot import envelope, style
from wandbsync.plot.envelope import Window, columns_of, thinned
from wandbsync.plot.figure import Series, draw
from wandbsync.plot.scale import View
from wandbsync.plot.stats import ema as smoothing
from wandbsync.plot.trace import COLUMNS, Trace

LOOK = style.LOOKS["screen"]
FINE = 4  # a reference has so many times the pixels each way


def series(kind: str, n: int) -> Series:
    rng = np.random.default_rng(5)
    x = np.arange(n)
    noise = rng.normal(size=n)
    y = {
        "noisy": lambda: noise,
        "spiky": lambda: np.where(rng.random(n) < 30 / n, noise * 50, noise * 0.1),
        "smooth": lambda: np.sin(x / n * 20) + x / n,
        "steps": lambda: np.floor(x / n * 12) % 5.0,
        "log": lambda: np.exp(-x / n * 6 + 0.3 * noise),
        "gaps": lambda: np.where((x // (n // 9)) % 3 == 1, np.nan, noise),
        "holes": lambda: np.where(rng.random(n) < 0.3, np.nan, noise),
    }.get(kind, lambda: noise)()
    if kind == "irregular":
        x = np.cumsum(rng.integers(1, 100, n) ** 3)
    return Series("r", x, y)


def pixels(one: Series, *, full_res: bool, fine: int = 1, thin: bool = False) -> np.ndarray:
    """The axes of a figure as grey levels of ink."""
    look = replace(LOOK, dpi=LOOK.dpi * fine, grid="#ffffff", minor_grid="#ffffff")
    view = View(log_y=bool(np.nanmin(one.y) > 0 and np.nanmax(one.y) > 100 * np.nanmin(one.y)))
    if thin:  # a thinner line, as raw values are drawn
        one = replace(one, smooth=np.full(len(one.y), one.y[np.isfinite(one.y)].mean()))
    figure = draw([one], title="m", look=look, full_res=full_res, view=view)
    axes = figure.axes[0]
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(which="both", length=0)
    for line in axes.lines if fine > 1 else []:
        line.set_snap(False)  # the reference is where the line is, not where the nearest pixels are
    with style.own_settings(look):
        figure.canvas.draw()
    page = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(np.float64).mean(axis=2)
    box = axes.get_position()
    height, width = page.shape
    unit = 4 * fine  # so that both resolutions are cut in the same places
    left, right = (round(edge * width / unit) * unit for edge in (box.x0, box.x1))
    top, bottom = (round((1 - edge) * height / unit) * unit for edge in (box.y1, box.y0))
    ink = 255.0 - page[top:bottom, left:right]
    return ink.reshape(ink.shape[0] // fine, fine, ink.shape[1] // fine, fine).mean(axis=(1, 3))


def apart(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean difference over what has ink, in 255ths, and the share of it that is off by more than a quarter."""
    ink = np.maximum(a, b) > 2
    return float(np.abs(a - b)[ink].mean()), float((np.abs(a - b)[ink] > 64).mean())


KINDS = ["noisy", "spiky", "smooth", "steps", "log", "gaps", "holes", "irregular"]


@pytest.mark.parametrize("n", [3_000, 50_000])
@pytest.mark.parametrize("kind", KINDS)
def test_no_further_from_what_a_line_is_than_all_points_stroked(kind, n):
    one = series(kind, n)
    ideal = pixels(one, full_res=True, fine=FINE)
    ours, strokes = pixels(one, full_res=False), pixels(one, full_res=True)
    mean, far = apart(ours, ideal)
    mean_of_strokes, far_of_strokes = apart(strokes, ideal)
    # Of points without neighbours there are thousands in the last: stroked, each is a marker put to the nearest pixels.
    slack, more = (2.5, 0.02) if (kind, n) == ("holes", 50_000) else (0.6, 0.001)
    assert mean <= mean_of_strokes + slack and far <= far_of_strokes + more
    if kind not in ("steps", "holes"):
        assert mean < mean_of_strokes
    assert apart(ours, strokes)[0] < 14 and apart(ours, strokes)[1] < 0.06


@pytest.mark.parametrize("kind", ["noisy", "spiky", "log"])
def test_faint_values_behind_a_smoothing_are_as_faithful(kind):
    one = series(kind, 20_000)
    ideal = pixels(one, full_res=True, fine=FINE, thin=True)
    ours, strokes = (pixels(one, full_res=full, thin=True) for full in (False, True))
    assert apart(ours, ideal)[0] <= apart(strokes, ideal)[0] + 0.35


def test_a_single_spike_among_a_million_points_is_there():
    y = np.zeros(1_000_000)
    y[654_321] = 1.0
    ink = pixels(Series("r", np.arange(len(y)), y), full_res=False)
    column = np.flatnonzero(ink[: len(ink) // 2].sum(axis=0))
    assert 2 <= len(column) <= 6 and ink[: len(ink) // 2, column].max() > 60


def test_every_point_is_within_its_ink():
    rng = np.random.default_rng(2)
    trace = Trace.of(np.cumsum(rng.integers(0, 9, 5_000)), rng.normal(size=5_000))
    window = Window((0.0, float(trace.x[-1])), (-5.0, 5.0), (600.0, 300.0))
    ink = envelope.envelope(trace, window, width=2.0)
    inside = ink.contains_points(np.column_stack([trace.x, trace.y]))
    assert inside[2:-2].all()


def test_full_res_has_every_point_and_short_lines_are_stroked():
    def kinds(one: Series, **how: bool) -> tuple[int, list[int]]:
        axes = draw([one], title="m", **how).axes[0]
        return len(axes.patches), [len(line.get_xdata()) for line in axes.lines]

    assert kinds(series("noisy", 50_000)) == (1, [])
    assert kinds(series("noisy", 50_000), full_res=True) == (0, [50_000])
    assert kinds(series("noisy", envelope.FROM - 1)) == (0, [envelope.FROM - 1])


def test_dashed_lines_are_thinned_to_what_shows():
    rng = np.random.default_rng(3)
    y = np.where(rng.random(100_000) < 0.001, np.nan, rng.normal(size=100_000))
    trace = Trace.of(np.arange(100_000), y)
    window = Window((0.0, 100_000.0), (-5.0, 5.0), (800.0, 400.0))
    few = thinned(trace, columns_of(trace, window, 2))
    assert len(few) <= 4 * 1601 + 2 * len(trace.breaks)
    assert few.y.min() == trace.y.min() and few.y.max() == trace.y.max()
    assert few.x[0] == trace.x[0] and few.x[-1] == trace.x[-1]
    assert trace.x[trace.breaks].tolist() == few.x[few.breaks].tolist(), "gaps are where they were"
    for low in range(0, 100_000, 10_000):
        part, kept = (t.y[(t.x >= low) & (t.x < low + 10_000)] for t in (trace, few))
        assert part.max() == kept.max() and part.min() == kept.min()


@pytest.mark.parametrize("kind", ["regular", "irregular", "holes in x", "repeated"])
def test_the_part_of_a_smoothing_that_is_seen_looks_like_all_of_it(kind):
    rng = np.random.default_rng(6)
    n = 300_000
    step = {
        "regular": np.ones(n, np.int64),
        "irregular": rng.integers(1, 50, n) ** 2,
        "holes in x": np.where(rng.random(n) < 1e-4, 200_000, 1),
        "repeated": rng.integers(0, 2, n),
    }[kind]
    x, y = np.cumsum(step), rng.normal(size=n).cumsum() + rng.normal(size=n) * 50
    whole = smoothing.time_weighted_ema(x, y, weight=0.9)
    found = smoothing.time_weighted_ema_seen(x, y, weight=0.9, columns=1_200 * COLUMNS)
    assert found is not None
    place, values = found
    assert (np.diff(place) > 0).all() and np.array_equal(values, whole[place]), "the same to the last digit"
    assert len(place) < 0.7 * n
    pictures = []
    for smooth, at in ((whole, None), (values, x[place])):
        figure = draw([Series("r", x, y, smooth, smooth_x=at, sorted_x=True)], title="m")
        figure.canvas.draw()
        pictures.append(np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(np.float64).mean(axis=2))
    mean, far = apart(*(255.0 - picture for picture in pictures))
    assert mean < 0.2 and far < 1e-4, (mean, far)


def test_ten_million_points_need_little_more_than_themselves():
    code = (
        "import resource, numpy as np\n"
        "from wandbsync.plot.figure import Series, draw, written\n"
        "from wandbsync.plot.stats.ema import time_weighted_ema\n"
        "written(draw([Series('r', np.arange(9), np.arange(9.0))], title='loss'))\n"
        "x, y = np.arange(10_000_000), np.random.default_rng(0).random(10_000_000)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "written(draw([Series('r', x, y, time_weighted_ema(x, y, weight=0.99), sorted_x=True)], title='loss'))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 260, "megabytes besides the 160 of the points themselves"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
