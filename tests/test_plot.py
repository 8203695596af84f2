"""Drawing: the rules of the axes, what a figure holds, where files go, what metadata.json says."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path, PurePosixPath

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.colors import to_hex
from PIL import Image
from rows import number, share
from rows import text as logged_text

import wandbsync
from wandbsync import files, query
from wandbsync.cache import Cache as StoredRuns
from wandbsync.errors import NotFound, UsageError, WandbsyncError
from wandbsync.model import HISTORY, SYSTEM, Kind, RunRef
from wandbsync.plot import PlotOptions, PlotRun, Source, compose, figure, names, picture, record, style
from wandbsync.plot import generate as generate_from
from wandbsync.plot import text as plot_text
from wandbsync.plot.figure import Panel, Series, draw, draw_grid
from wandbsync.plot.figure import written as png
from wandbsync.plot.key import apart
from wandbsync.plot.plan import Overlay, Picture, Plan, labels, plan
from wandbsync.plot.scale import View
from wandbsync.plot.short_names import shared, shorten, told_apart, without_shared
from wandbsync.plot.stats.ema import rolling_mean, time_weighted_ema
from wandbsync.plot.text import drawable
from wandbsync.plot.ticks import linear_ticks, log_ticks, tick_texts, time_ticks, value_text
from wandbsync.query import metrics
from wandbsync.query.metrics import split_names

NAN, INF, M = math.nan, math.inf, sys.float_info.max
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
RUN = PlotRun("me", "demo", "3ti4gf13", "brave-sun-7")
OTHER = PlotRun("me", "demo", "x9", "calm-sea-8")


def generate(runs, metrics, options, *, load, now, **more):
    return generate_from(runs, metrics, options, Source(load, **more), now=now)


def one(y, x=None, smooth=None, label="run"):
    y = np.array(y, dtype=np.float64)
    x = np.arange(len(y)) if x is None else np.asarray(x)
    return Series(label, x, y, None if smooth is None else np.array(smooth, dtype=np.float64))


def lines(fig):
    return {line.get_gid(): line for line in fig.axes[0].get_lines()}


def words(fig, gid):
    return [text.get_text() for text in fig.texts if text.get_gid() == gid]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def image(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


# --- the y axis


@pytest.mark.parametrize(
    ("metric", "y", "log"),
    [
        ("train/loss", [1.1, 0.2, 0.15, 0.1], True),
        ("Loss/Total", [0.1, 0.15, 0.2, 1.1], True),
        ("loss_reduction_pct", [1.0, 40.0, 70.0, 90.0, 95.0], False),  # most values are far up: it is no loss
        ("loss", [0.1, 1.0, 0.9, 1.1], False),
        ("loss", [0.1, 1.0], False),  # one order of magnitude is not more than one
        ("loss", [0.0, 0.1, 0.1, 0.2, 1.1], True),  # the positive values decide
        ("loss", [-5.0, 0.1, 1.1], False),  # a logarithm would hide the negative one
        ("loss", [0.5, 1.1, -9.0], False),
        ("loss", [-1.0, -100.0], False),
        ("loss", [0.1, NAN, INF, 0.2], False),
        ("reward", [0.1, 1e6], False),
    ],
)
def test_a_loss_over_more_than_a_factor_of_ten_is_logarithmic(metric, y, log):
    axes = draw([one(y)], title=metric).axes[0]
    assert axes.get_yscale() == ("log" if log else "linear")
    assert axes.get_ylabel() == metric + (" (log scale)" if log else "")


@pytest.mark.parametrize(
    ("metric", "y", "fixed"),
    [
        ("eval/Accuracy", [0.2, 0.9], True),
        ("top1_acc", [0.0, 1.0], True),
        ("acc", [0.2, NAN], True),
        ("acc", [0.2, 1.01], False),
        ("acc", [-0.01, 0.5], False),
        ("f1", [0.2, 0.9], False),
        ("acc_loss", [0.5, 0.9], False),  # a loss first
    ],
)
def test_an_accuracy_within_0_and_1_gets_that_range(metric, y, fixed):
    axes = draw([one(y)], title=metric).axes[0]
    assert (axes.get_ylim() == (-0.05, 1.05)) == fixed
    assert (ticks(axes.yaxis) == ["0%", "20%", "40%", "60%", "80%", "100%"]) == fixed


def test_the_rules_look_at_all_runs_and_at_values_before_smoothing():
    smooth = [1.0, 1.0]
    runs = [one([0.1, 0.1], smooth=smooth)] * 4 + [one([0.1, 1.1], smooth=smooth)]
    assert draw(runs, title="loss").axes[0].get_yscale() == "log"
    assert draw(runs[:4], title="loss").axes[0].get_yscale() == "linear"


def test_the_limits_hold_what_is_drawn_and_little_more():
    axes = draw([one([3.0, 7.0, 5.0])], title="m").axes[0]
    low, high = axes.get_ylim()
    assert 2.8 < low < 3.0 and 7.0 < high < 7.2
    low, high = axes.get_xlim()
    assert -0.1 < low < 0 and 2 < high < 2.1
    low, high = draw([one([0.01, 0.02, 10.0, 0.02])], title="loss").axes[0].get_ylim()
    assert 0.005 < low < 0.01 and 10 < high < 20


# --- the lines


def test_the_smoothing_is_drawn_over_the_faint_values():
    y, smooth = np.tile([1.0, 5.0, 3.0], 40), np.tile([1.0, 2.0, 3.0], 40)
    drawn = lines(draw([one(y, smooth=smooth)], title="m"))
    assert set(drawn) == {"raw-0", "line-0"}
    assert drawn["raw-0"].get_ydata().tolist() == y.tolist()
    assert drawn["line-0"].get_ydata().tolist() == smooth.tolist()
    assert drawn["line-0"].get_xdata().tolist() == list(range(120))
    assert drawn["raw-0"].get_alpha() < 0.3 and drawn["line-0"].get_alpha() == 1.0
    assert drawn["raw-0"].get_zorder() < drawn["line-0"].get_zorder()
    assert drawn["raw-0"].get_linewidth() < drawn["line-0"].get_linewidth()
    assert drawn["raw-0"].get_color() == drawn["line-0"].get_color() == "#0072B2"


def test_without_smoothing_there_is_one_full_line():
    drawn = lines(draw([one([1.0, 5.0])], title="m"))
    assert set(drawn) == {"line-0"}
    assert drawn["line-0"].get_alpha() == 1.0


def haze(fig):
    return {patch.get_gid(): patch for patch in fig.axes[0].patches if (patch.get_gid() or "").startswith("raw")}


@pytest.mark.parametrize("count", [4, 12, 60])
def test_the_values_of_many_runs_are_a_haze_of_each_ones_colour(count):
    series = [one([1.0, 9.0] * 51, smooth=[1.0, 2.0] * 51, label=f"r{i}") for i in range(count)]
    fig = draw(series, title="m", subtitle="4 runs")
    drawn = lines(fig)
    assert set(haze(fig)) == {f"raw-{i}" for i in range(count)}
    assert all(to_hex(haze(fig)[f"raw-{i}"].get_facecolor()) == drawn[f"line-{i}"].get_color().lower() for i in (0, 3))
    inks = haze(fig)["raw-0"].get_path().vertices[:, 1]
    assert inks.min() < 1.1 and inks.max() > 8.9, "from the lowest to the highest"
    alpha = haze(fig)["raw-0"].get_alpha()
    assert 1.0 - (1.0 - alpha) ** count < 0.75, "all over each other are no mud"
    assert words(fig, "subtitle") == ["4 runs"] and fig.axes[0].get_ylim()[1] > 9


@pytest.mark.parametrize("runs", [1, 4, 30])
def test_where_all_have_few_values_these_are_dots(runs):
    y = np.where(np.arange(105) % 21, np.linspace(1, 9, 105), NAN)
    series = [one(y, smooth=y / 2, label=f"r{i}") for i in range(runs)]
    assert np.isfinite(y).sum() == 100
    fig = draw(series, title="m", subtitle="r")
    assert {gid for gid in lines(fig) if gid} == {f"{kind}-{i}" for kind in ("dots", "line") for i in range(runs)}
    dots = lines(fig)["dots-0"]
    assert dots.get_ydata().tolist() == y[np.isfinite(y)].tolist()
    assert (dots.get_marker(), dots.get_linestyle()) == ("o", "None") and dots.get_alpha() < 0.5
    assert fig.axes[0].get_ylim()[1] > 9, "dots have their room"


def test_values_look_alike_in_one_picture():
    few, many = one([1.0, 3.0], smooth=[1.0, 2.0]), one([1.0, 3.0] * 51, smooth=[1.0, 2.0] * 51)
    for series in ([few, many], [few, many, few, many]):
        fig = draw(series, title="m")
        drawn = {gid for gid in [*lines(fig), *haze(fig)] if gid}
        assert drawn == {f"{kind}-{i}" for kind in ("raw", "line") for i in range(len(series))}


USUAL = np.linspace(1.0, 2.0, 99)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.r_[USUAL, 1e12], "1 point above (to 1.00T), where 1 line ends"),
        (np.r_[1e12, USUAL], "1 point above (to 1.00T)"),
        (np.r_[1e12, USUAL, 1e-9], "1 point above (to 1.00T), 1 point below (to 1e-9), where 1 line ends"),
        (np.r_[USUAL, 1e12 * np.arange(1, 11)], ""),  # so many are no outliers
        (np.r_[USUAL, 4.0], ""),  # it does not take nearly all
        (np.r_[USUAL[:5], 1e12], ""),  # of so few all count
    ],
)
def test_a_few_values_do_not_take_the_whole_axis(y, said, log):
    if "below" in said and not log:
        y, said = np.r_[1e12, USUAL, -900.0], said.replace("1e-9", "−900")
    lines_of = [one(y)] if len(y) < 20 else [one(y), one(USUAL), one(USUAL)]
    fig = draw(lines_of, title="m", view=View(log_y=log))
    low, high = fig.axes[0].get_ylim()
    assert words(fig, "subtitle") == [said]
    assert (low <= y.min(), high >= y.max()) == ("below" not in said, not said)
    assert not said or 2.0 < high < 4.0
    whole = draw(lines_of, title="m", view=View(log_y=log, clip_outliers=False))
    assert whole.axes[0].get_ylim()[1] > y.max(), "--no-clip"
    asked = draw(lines_of, title="m", view=View(log_y=log, y=(None, 1e13)))
    assert asked.axes[0].get_ylim()[1] == 1e13


def test_values_that_are_one_but_for_a_few_have_no_other_height():
    y = np.r_[np.zeros(300), 1e3, 0.0]
    assert draw([one(y)], title="m").axes[0].get_ylim()[1] > 1e3


def test_a_line_that_runs_away_alone_is_what_is_to_be_seen():
    y = np.r_[np.linspace(1, 2, 199), 1e12]
    assert draw([one(y)], title="m").axes[0].get_ylim()[1] > 1e12
    two = draw([one(y), one(y[:-1])], title="m")
    assert two.axes[0].get_ylim()[1] < 4
    assert words(two, "subtitle") == ["1 point above (to 1.00T), where 1 line ends"]


def test_labels_are_the_values_that_were_logged_last():
    up, down = one([1, 5] * 60, smooth=[1, 2] * 60, label="a"), one([5, 1] * 60, smooth=[3, 4] * 60, label="b")
    assert words(draw([up, down], title="m"), "name") == ["a  5", "b  1"]
    fig = draw([up, *[down] * 8], title="m")
    assert fig.artists[0].get_texts()[0].get_text() == "a  5", "the largest first, by what was logged"
    seen = draw([one([1, 2, 3, 4])], title="m", view=View(x=(None, 1.5)))
    assert words(seen, "name") == ["2"], "of what the picture shows"
    group = replace(one([1, 2]), smoothed=True)
    fig = draw([group], title="m")
    assert words(fig, "name") == ["≈ 2"] and words(fig, "subtitle") == ["≈ smoothed"]


def test_the_notes_of_panels_are_in_a_grid():
    panels = [
        Panel(series=[one([1, NAN, 2])], title="a", subtitle="who", notes=["x steps back once: sorted"]),
        Panel(series=[one([1, 2])], title="b", subtitle="who"),
    ]
    fig, _ = draw_grid(panels, title="all")
    assert [text for text in words(fig, "subtitle") if text] == [
        "x steps back once: sorted · 1 non-finite value not drawn"
    ]
    tops = [axes.get_position().y1 for axes in fig.axes]
    assert tops[0] == pytest.approx(tops[1]), "the axes stand in line all the same"


def test_gaps_where_a_value_is_not_finite():
    fig = draw([one([1, 2, NAN, INF, 3, 4, -INF], smooth=[1, 2, NAN, NAN, 3, 4, NAN])], title="m", subtitle="r")
    shown = lines(fig)["line-0"]
    assert np.array_equal(shown.get_ydata(), [1, 2, NAN, 3, 4], equal_nan=True)
    assert np.array_equal(shown.get_xdata(), [0, 1, NAN, 4, 5], equal_nan=True)
    assert lines(fig)["dots-0"].get_xdata().tolist() == [0, 1, 4, 5]
    assert words(fig, "subtitle") == ["r · 3 non-finite values not drawn"]
    assert fig.axes[0].get_ylim()[1] < 5
    assert words(draw([one([1, NAN, 2])], title="m"), "subtitle") == ["1 non-finite value not drawn"]


def test_gaps_where_a_logarithm_has_no_value():
    fig = draw([one([1, 0, 0, 100, 5], smooth=[1, 0.5, 0, 20, 10])], title="loss")
    assert lines(fig)["dots-0"].get_ydata().tolist() == [1, 100, 5]
    assert np.array_equal(lines(fig)["line-0"].get_ydata(), [1, 0.5, NAN, 20, 10], equal_nan=True)
    assert words(fig, "subtitle") == ["2 values ≤ 0 not drawn"]
    assert "≤" not in words(draw([one([1, 0, -3])], title="m"), "subtitle")[0]


def test_a_point_between_gaps_is_a_dot():
    fig = draw([one([1, NAN, 2, 3, NAN, 4])], title="m")
    dots = lines(fig)["line-0-dots"]
    assert dots.get_xdata().tolist() == [0, 5] and dots.get_ydata().tolist() == [1, 4]
    assert dots.get_marker() == "o" and dots.get_linestyle() == "None"


def test_a_single_point_is_a_dot_in_the_middle():
    fig = draw([one([0.123], x=[77])], title="m")
    assert lines(fig)["line-0-dots"].get_xdata().tolist() == [77]
    assert ticks(fig.axes[0].xaxis) == ["77"]
    dark = np.asarray(image(png(fig)).convert("L"))[200:500, 400:900]
    assert (dark < 120).sum() > 50


def test_each_run_has_its_colour_whoever_else_has_values():
    full, empty = one([1, 2], label="full"), one([], label="empty")
    for series in ([full, full, full], [empty, full, full], [one([NAN]), empty, full]):
        assert lines(draw(series, title="m"))[f"line-{sum(s is full for s in series) - 1}"].get_color() == "#009E73"


@pytest.mark.parametrize("count", [1, 7, 8, 36, 60, 80])
def test_lines_can_be_told_apart(count):
    assert len(set(style.strokes(range(count)))) == count
    fig = draw([one([1, 2], label=str(i)) for i in range(count)], title="m")
    looks = {(line.get_color(), line._unscaled_dash_pattern, line.get_linewidth()) for line in fig.axes[0].get_lines()}
    assert len(looks) == count and words(fig, "subtitle") == [""]


def test_lines_that_look_alike_are_counted():
    assert len(style.strokes(range(500))) == 500
    series = [one([1, 2], label=str(i)) for i in range(83)]
    assert words(draw(series, title="m"), "subtitle") == ["6 lines look like another one"]
    assert words(draw([*series[:80], one([]), *series[81:]], title="m"), "subtitle") == [
        "4 lines look like another one"
    ]


# --- the words


def test_runs_are_named_at_their_ends():
    fig = draw([one([1, 5], label="up"), one([9, 2], label="down"), one([1, 2.001], label="near")], title="m")
    assert words(fig, "name") == ["up  5", "down  2", "near  2.00"]
    assert [t.get_color() for t in fig.texts if t.get_gid() == "name"] == list(style.ON_WHITE[:3])
    heights = sorted(t.get_position()[1] * 720 for t in fig.texts if t.get_gid() == "name")
    assert all(b - a >= 22.9 for a, b in pairwise(heights))
    edge = fig.axes[0].get_position().x1
    assert all(t.get_position()[0] > edge for t in fig.texts if t.get_gid() == "name")


def test_one_run_shows_its_value_only():
    fig = draw([one([1, 0.4231, NAN], label="brave")], title="train/m", subtitle="brave")
    assert words(fig, "name") == ["0.423"]
    assert words(fig, "title") == ["train/m"]


@pytest.mark.parametrize(("count", "width"), [(8, 1200), (9, 1425), (30, 1425), (31, 1800), (75, 1800)])
def test_many_runs_are_listed_beside_the_axes(count, width):
    fig = draw([one([1, i], label=f"_r{i}") for i in range(count)], title="m")
    drawn = image(png(fig))
    assert drawn.size == (width, 720)
    if count <= 8:
        assert not fig.legends and len(words(fig, "name")) == count
        return
    (key,) = [artist for artist in fig.get_children() if isinstance(artist, mpl.legend.Legend)]
    listed = [text.get_text() for text in key.get_texts()]
    assert listed[0] == f"_r{count - 1}  {count - 1}"
    assert len(listed) == min(count, 60)
    assert listed[-1] == ("_r0  0" if count <= 60 else f"… and {count - 59} more")
    box = key.get_window_extent(fig.canvas.get_renderer())
    assert box.x0 > fig.axes[0].get_window_extent().x1 and box.x1 <= width and box.y0 >= 0 and box.y1 <= 720


def listed(fig):
    (key,) = [artist for artist in fig.get_children() if isinstance(artist, mpl.legend.Legend)]
    return [text.get_text() for text in key.get_texts()]


def test_long_names_in_the_list_keep_what_differs():
    names = [f"imagenet-resnet50-lr=1e-{i}-cosine-seed={i % 3}-augmented-with-everything-there-is" for i in range(9)]
    fig = draw([one([1, i], label=name) for i, name in enumerate(names)], title="m")
    assert listed(fig) == [f"lr=1e-{i}-cosine-seed={i % 3}  {i}" for i in reversed(range(9))]
    at_lines = draw([one([1, i], label=name) for i, name in enumerate(names[:3])], title="m")
    assert words(at_lines, "name") == [f"lr=1e-{i}-cosine-seed={i}  {i}" for i in range(3)]


@pytest.mark.parametrize("count", [2, 12, 60])
def test_names_that_cannot_be_kept_apart_get_their_ids(count):
    series = [Series("a" * 60, np.arange(2), np.array([1.0, i]), run_id=f"id{i}") for i in range(count)]
    fig = draw(series, title="m")
    said = words(fig, "name") if count == 2 else listed(fig)
    assert all(any(f" (id{i})  {i}" in text and "a…a" in text for text in said) for i in range(count))
    assert fig.axes[0].get_position().width > 0.4


@pytest.mark.parametrize(
    ("names", "shown", "common"),
    [
        (["a-b-c", "a-x-c"], ["a-b-c", "a-x-c"], ""),  # short enough to be said whole
        (["net-lr=0.1_seed=1", "net-lr=0.2_seed=1"], ["lr=0.1", "lr=0.2"], "net-…seed=1"),
        (["some/place/1e-5/x", "some/place/1e-6/x"], ["place/1e-5", "place/1e-6"], "some/…x"),
        (["sweep one of two", "sweep two of two"], ["one", "two"], "sweep …of two"),
        (["baseline", "baseline-model-2"], ["baseline", "baseline-model-2"], ""),
        (["ppo_cheetah-seed-1", "ppo_cheetah-seed-2"], ["seed-1", "seed-2"], "ppo_cheetah-…"),
        (["net (lr=0.1, seed=1)", "net (lr=0.1, seed=2)"], ["seed=1", "seed=2"], "net (lr=0.1, …"),
        (["net (lr=0.1, seed=1)", "net (lr=0.2, seed=1)"], ["lr=0.1", "lr=0.2"], "net …seed=1)"),
        (["a long name (3ti4)", "a long name (x8k2)"], ["3ti4", "x8k2"], "a long name …"),
        (["same same same", "same same same"], ["same same same", "same same same"], ""),
        (["", "abcdefghijklmnop"], ["", "abcdefghijklmnop"], ""),
    ],
)
def test_what_tells_names_apart(names, shown, common):
    assert without_shared(names) == shown and shared(names) == common


def test_names_in_little_room():
    ids = ["1", "2"]
    assert told_apart(["key-ab-mid-long-x", "key-cd-mid-long-y"], ids, 12, len) == ["ab…x", "cd…y"]
    assert told_apart(["abcdefghij"], ["1"], 5, len) == ["ab…ij"]
    assert told_apart(["first-second-third-fourth"], ["1"], 15, len) == ["first…fourth"]
    assert told_apart(["abcdefghij", "abcdxfghij"], ids, 9, len) == ["…e…", "…x…"]
    assert told_apart(["abcdefghijklmnopqrst", "uvwxyefghijklmnopABC"], ids, 9, len) == ["abcd…qrst", "uvwx…pABC"]
    assert told_apart(["same", "same"], ids, 9, len) == ["same (1)", "same (2)"]


@given(st.lists(st.text("ab1-=( ),", max_size=30), min_size=1, max_size=6, unique=True), st.integers(8, 40))
def test_names_fit_and_differ_with_their_ids(names, room):
    shown = told_apart(names, [f"{i}" for i in range(len(names))], room, len)
    assert all(len(one) <= room for one in shown) and len(set(shown)) == len(names)


def test_everything_stays_on_the_page():
    long = "an extremely long name that goes on " * 9
    fig = draw(
        [Series(long + str(i), np.arange(5) + 10**12, np.arange(5.0) + 1e9 + i, None, long) for i in range(8)],
        title=long,
        subtitle=long,
    )
    png(fig)
    renderer = fig.canvas.get_renderer()
    for text in [*fig.texts, fig.axes[0].xaxis.label, fig.axes[0].yaxis.label, *fig.axes[0].get_yticklabels()]:
        box = text.get_window_extent(renderer)
        assert box.x0 >= 0 and box.x1 <= 1200 and box.y0 >= 0 and box.y1 <= 720, text
    assert "…" in words(fig, "title")[0]
    assert words(fig, "name")[3] == "on 3  1000000007"


@pytest.mark.parametrize(
    "name", ["损失/训练", "Потеря № 1", "απώλεια", "$x^2$ \\frac", "a\nb\tc\0", "خسارة", "😀 🧪", "\ud800", "‮abc", "é́"]
)
def test_any_name_can_be_drawn(name):
    fig = draw([one([1, 2], label=name), one([2, 3], label="b")], title=name, subtitle=name)
    assert image(png(fig)).size == (1200, 720)


def test_what_can_be_drawn_is_left_alone():
    assert drawable("Loss μ π Потеря απ $x$") == "Loss μ π Потеря απ $x$"
    assert drawable("a\nb\0") == "a b "
    assert drawable("\U000f0000x") == "□x"  # private use: no font has it


def test_what_no_usual_font_has_is_looked_for_in_those_that_are_there(tmp_path, monkeypatch, caplog):
    fonts = pytest.importorskip("fontTools.fontBuilder")
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")

    def box():
        pen = pens.TTGlyphPen(None)
        pen.moveTo((100, 0))
        for corner in ((100, 700), (900, 700), (900, 0)):
            pen.lineTo(corner)
        pen.closePath()
        return pen.glyph()

    builder = fonts.FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "loss"])
    builder.setupCharacterMap({ord("损"): "loss"})
    builder.setupGlyf({".notdef": box(), "loss": box()})
    builder.setupHorizontalMetrics({".notdef": (1000, 100), "loss": (1000, 100)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "SimHei", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "SimHei.ttf")
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", [font for font in manager.ttflist if font.name == "DejaVu Sans"])

    def forget():
        plot_text.families.cache_clear()
        plot_text._characters.cache_clear()

    forget()
    try:
        assert drawable("损") == "□"
        manager.addfont(tmp_path / "SimHei.ttf")
        forget()
        assert drawable("损 loss") == "损 loss"
        fig = draw([one([1, 2], label="损"), one([2, 3])], title="损")
        dark = np.asarray(image(png(fig)).convert("L"))[25:60]
        assert (dark < 50).sum() > 150, "a filled box"
        assert not caplog.records, "a face that is not bold is no news"
    finally:
        forget()


def test_dollars_are_dollars():
    fig = draw([one([1, 2])], title="cost_$_per_$x")
    title = next(text for text in fig.texts if text.get_gid() == "title")
    assert title.get_text() == "cost_$_per_$x" and not title.get_parse_math()


def test_names_are_shortened_in_the_middle():
    assert shorten("abcdefghij", 10, len) == "abcdefghij"
    assert shorten("abcdefghij", 5, len) == "ab…ij"
    assert shorten("abcdefghij", 0, len) == "…"


# --- numbers that are hard to draw


@pytest.mark.parametrize(
    "y",
    [
        [5.0] * 3,
        [0.0] * 3,
        [0.1, 0.1 + 1e-17],
        [1e300, -1e300, 1e299],
        [1.7e308, 1.0, -1.7e308],
        [1e-300, 2e-300],
        [5e-324, 0.0],
        [5e-324] * 3,
        [5e-324, 1e-323],
        [1e-323, 3e-323, 2e-322],
        [M, -M] * 3,
        [M] * 3,
        [-M, -M / 2],
        [5e-324, M] * 3,
        [M, M / 30, 1e300],
        [1e9, 1e9 + 1e-3],
        [1e-320, 1e300, 1e-5],
        [-1e-12, 1e-12],
        [float(2**53), float(2**53 + 2)],
    ],
)
@pytest.mark.parametrize("metric", ["loss", "acc", "other"])
def test_hard_numbers_make_a_figure(y, metric):
    fig = draw([one(y, smooth=y)], title=metric)
    low, high = fig.axes[0].get_ylim()
    assert math.isfinite(low) and math.isfinite(high) and low < high
    labels = ticks(fig.axes[0].yaxis)
    assert len(labels) == len(set(labels)) >= 1
    assert image(png(fig)).size == (1200, 720)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(allow_subnormal=True), min_size=1, max_size=30),
    st.sampled_from(["loss", "acc", "m"]),
    st.sampled_from([1, 4]),
)
@example([1e-323, 4e-323, 3e-322, NAN], "loss", 4)
@example([5e-324] * 2 + [5e-323] * 2, "loss", 4)
def test_any_finite_number_is_drawn(y, metric, runs):
    y = np.array(y * (101 // len(y) + 1 if runs > 1 else 1))
    x = np.arange(len(y))
    for smooth in (None, rolling_mean(y, 2), time_weighted_ema(x, y, weight=0.99)):
        if not np.isfinite(y).any():
            with pytest.raises(UsageError):
                draw([one(y, smooth=smooth)] * runs, title=metric)
            continue
        clip = False if runs == 1 else None
        fig = draw([one(y, smooth=smooth)] * runs, title=metric, view=View(clip_outliers=clip))
        png(fig)
        axes = fig.axes[0]
        low, high = axes.get_ylim()
        assert -INF < low < high < INF and len(set(ticks(axes.yaxis))) == len(ticks(axes.yaxis)) >= 1
        shown = lines(fig)["line-0"].get_ydata()
        at = lines(fig)["line-0"].get_xdata()
        log = axes.get_yscale() == "log"
        values = y if smooth is None else smooth
        assert np.isfinite(shown).sum() == (np.isfinite(values) & ((values > 0) | (not log))).sum()
        pixels = axes.transData.transform(np.column_stack([at, shown]))[:, 1]
        inside = pixels[np.isfinite(pixels)]
        box = axes.get_window_extent()
        said = words(fig, "subtitle")[0]
        assert ("above" in said or "below" in said) or ((inside >= box.y0 - 1) & (inside <= box.y1 + 1)).all()
        assert clip is None or not ("above" in said or "below" in said)


@pytest.mark.parametrize("value", [5e-324, 1e-323, M])
def test_a_logarithmic_axis_around_an_extreme_constant(value):
    fig = draw([one([5e-324, 1e-322] * 51, smooth=[value] * 102)] * 4, title="loss", view=View(log_y=True))
    low, high = fig.axes[0].get_ylim()
    assert fig.axes[0].get_yscale() == "log" and 0 < low <= value <= high < INF and low < high
    assert ticks(fig.axes[0].yaxis)
    png(fig)


@pytest.mark.parametrize(
    ("y", "labels", "last"),
    [
        ([M, -M] * 3, ["−1e308", "0", "1e308"], "−1.80e308"),
        ([5e-324] * 3, ["4.7e-324", "4.8e-324", "4.9e-324", "5e-324", "5.1e-324"], "4.941e-324"),
        ([0.0, 1e-310], ["0", "2e-311", "4e-311", "6e-311", "8e-311", "1e-310"], "1e-310"),
    ],
)
def test_the_ends_of_the_number_line_have_their_ticks(y, labels, last):
    fig = draw([one(y)], title="m")
    assert ticks(fig.axes[0].yaxis) == labels
    assert words(fig, "name") == [last.replace("1.80", "1.8")]


@pytest.mark.parametrize(
    "x", [[-(2**63), 0, 2**63 - 1], [0, 0, 0], [3, 2, 1], [1.5, NAN, 2.5], [10**15, 10**15 + 1, 10**15 + 2]]
)
def test_hard_steps_make_a_figure(x):
    fig = draw([one([1, 2, 3], x=x)], title="m")
    labels = ticks(fig.axes[0].xaxis)
    assert len(labels) == len(set(labels)) >= 1
    png(fig)


@pytest.mark.parametrize("y", [[], [NAN], [INF, -INF, NAN]])
def test_no_finite_value_is_an_error(y):
    with pytest.raises(UsageError, match="m has no value that can be drawn"):
        draw([one(y), one(y)], title="m")


def test_a_million_points():
    x = np.arange(1_000_000)
    y = np.exp(-x / 2e5) * np.random.default_rng(0).lognormal(0, 0.2, len(x))
    start = time.perf_counter()
    data = png(draw([Series("r", x, y, time_weighted_ema(x, y, weight=0.99))], title="loss"))
    assert time.perf_counter() - start < 15  # under a second when idle
    assert image(data).size == (1200, 720)


def test_a_path_too_long_for_agg_is_drawn_in_pieces(monkeypatch):
    seen = []

    class Canvas(figure.FigureCanvasAgg):
        def draw(self):
            seen.append(mpl.rcParams["agg.path.chunksize"])
            if not seen[-1]:
                raise OverflowError("Exceeded cell block limit in Agg")
            super().draw()

    monkeypatch.setattr(figure, "FigureCanvasAgg", Canvas)
    assert image(png(draw([one([1, 2])], title="m"))).size == (1200, 720)
    assert seen == [0, 1000]


# --- reproducible


def test_the_users_settings_change_nothing_and_are_left_alone():
    def make():
        return png(draw([one([1, 5, 3], smooth=[1, 2, 3])], title="train/$m$"))

    plain = make()
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30, "xtick.major.size": 20, "lines.antialiased": False}):
        assert make() == plain
        assert mpl.rcParams["font.size"] == 30
    assert b"tIME" not in plain and b"Creation" not in plain


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(range(7)), min_size=2, max_size=6), st.sampled_from(list(style.LOOKS)))
def test_a_figure_that_is_used_again_is_as_good_as_new(order, look):
    many = np.exp(-np.arange(2000) / 300) + 0.01
    panels = [
        figure.Panel(series=[one([1, 5, 3], smooth=[1, 2, 3])], title="m", subtitle="s"),
        figure.Panel(series=[one(many, smooth=many)], title="loss"),
        figure.Panel(series=[one([0.1, 0.2])], title="acc"),
        figure.Panel(series=[one([1, i], label=f"r{i}") for i in range(40)], title="a longer name"),
        figure.Panel(series=[one([1, NAN, 1e300])], title="huge"),
        figure.Panel(series=[one([1, 2, 30], x=[1, 10, 1000])], title="x", view=View(log_x=True, log_y=True)),
        figure.Panel(series=[one([1, 2, 4], x=[1.7e9, 1.7e9 + 50, 1.7e9 + 4e5])], title="when", time_x=True),
    ]
    look = style.LOOKS[look]
    last = None
    for i in order:
        last = figure.draw_panel(panels[i], look=look, on=last)
        assert png(last, "png", look) == png(figure.draw_panel(panels[i], look=look), "png", look), order


def test_importing_and_planning_need_no_heavy_library():
    code = (
        "import sys, wandbsync.plot, wandbsync.plot.plan;"
        "print([m for m in ('numpy','matplotlib','pandas','duckdb','wandb','pyarrow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = (
        "import sys, wandbsync.plot.figure;"
        "print([m for m in ('matplotlib.pyplot','pandas','duckdb','wandb') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- ticks


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 250e3, 500e3, 1e6, 1.25e6, 1.5e9], ["0", "250k", "500k", "1M", "1.25M", "1.5B"]),
        ([0.8, 0.85, 0.9], ["0.80", "0.85", "0.90"]),
        ([-0.5, 0, 0.5], ["−0.5", "0", "0.5"]),
        ([0.1 * 3, 0.4], ["0.3", "0.4"]),
        ([2.5e-7, 5e-7], ["2.5e-7", "5e-7"]),
        ([-1e20, 0, 1e20], ["−1e20", "0", "1e20"]),
        ([999999999.98, 1e9, 1000000000.02], ["999999999.98", "1000000000.00", "1000000000.02"]),
        ([500, 1000, 1500, 2000], ["500", "1k", "1.5k", "2k"]),
        ([], []),
    ],
)
def test_tick_texts(values, texts):
    assert tick_texts(values) == texts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.4231, "0.423"),
        (0, "0"),
        (5, "5"),
        (1234, "1234"),
        (1.5, "1.50"),
        (12345, "12.3k"),
        (999_999, "1.00M"),
        (-2.5e6, "−2.50M"),
        (1e-5, "1e-5"),
        (1.234e-9, "1.23e-9"),
        (1e300, "1e300"),
        (0.00012, "0.000120"),
        (5e-324, "4.94e-324"),
        (-M, "−1.8e308"),
    ],
)
def test_value_text(value, text):
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("value", "span", "text"),
    [
        (1.8e9 + 42, 300.0, "1800000042"),
        (1.8e9 + 42.25, 30.0, "1800000042.2"),
        (1.8e9 + 42.25, 1e7, "1800000042"),
        (1.8e9, 1e8, "1.800B"),
        (123456.0, 50_000.0, "123.5k"),
        (0.4231, 2.0, "0.423"),
        (0.4231, 0.001, "0.42310"),
        (0.0, 1.0, "0"),
    ],
)
def test_value_text_shows_a_hundredth_of_the_axis(value, span, text):
    assert value_text(value, span=span) == text


def test_values_at_lines_can_be_told_apart():
    fig = draw([one(1.8e9 + np.arange(300) + k * 20, label=f"r{k}") for k in range(3)], title="_timestamp")
    assert words(fig, "name") == ["r0  1800000299", "r1  1800000319", "r2  1800000339"]
    fig = draw([one([1e9 + 1e-3 * i for i in range(100)])], title="m")
    assert words(fig, "name") == ["1000000000.099"]


def test_values_at_a_percent_axis_are_percentages():
    fig = draw([one([0.2, y], label=str(y)) for y in (0.964, 1.0, 0.0512, 0.0)], title="acc")
    assert words(fig, "name") == ["0.964  96.4%", "1.0  100%", "0.0512  5.12%", "0.0  0%"]
    fig = draw([one([0.2, i / 10], label=str(i)) for i in range(9)], title="acc")
    assert listed(fig)[0] == "8  80.0%"


@given(st.floats(1e-300, 1e300), st.floats(1.1, 1e12))
def test_log_ticks_lie_within_and_there_are_some(low, factor):
    high = min(low * factor, 1e300 * 1.2)
    major, minor = log_ticks(low, high)
    assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in [*major, *minor])
    assert 2 <= len(major) <= 9


@settings(deadline=None)
@given(st.floats(-1e15, 1e15), st.floats(1e-9, 1e15), st.integers(1, 9))
def test_tick_texts_differ(low, span, most):
    low_high = (low, low + max(span, abs(low) * 1e-9))
    texts = tick_texts(linear_ticks(*low_high, most))
    assert len(set(texts)) == len(texts)


@given(st.lists(st.floats(0, 500), max_size=12))
def test_apart(wanted):
    places = apart(wanted, 23.0, 0.0, 500.0)
    order = sorted(places)
    assert all(b - a > 22.999 for a, b in pairwise(order))
    assert all(-1e-6 <= place <= 500 + 1e-6 for place in places)
    by_wish = [place for _, place in sorted(zip(wanted, places, strict=True))]
    assert by_wish == order


def test_apart_leaves_alone_what_has_room():
    assert apart([100.0, 10.0, 300.0], 23.0, 0.0, 500.0) == [100.0, 10.0, 300.0]
    assert apart([100.0, 100.0], 20.0, 0.0, 500.0) == [90.0, 110.0]


# --- names of files


@pytest.mark.parametrize(
    ("metric", "file"),
    [
        ("loss", "loss.png"),
        ("train/loss", "train_loss.png"),
        ("a\\b", "a_b.png"),
        ("../../x", "___.._x.png"),
        ("..", "__.png"),
        (".hidden", "_hidden.png"),
        ("", "unnamed.png"),
        ("  ", "unnamed.png"),
        ("потеря 损失", "потеря 损失.png"),
        ("a\0b\nc", "a_b_c.png"),
        ("\ud800", "_.png"),
    ],
)
def test_file_names(metric, file):
    assert names.plot_files([metric]) == {metric: PurePosixPath(file)}


@given(st.lists(st.text(st.characters() | st.sampled_from("./\\aA_"), max_size=120), unique=True), st.booleans())
def test_files_are_distinct_and_stay_inside(metrics, grouped):
    files = names.plot_files(metrics, group_by_prefix=grouped)
    assert list(files) == metrics
    assert len({str(file).casefold() for file in files.values()}) == len(metrics)
    for file in files.values():
        assert not file.is_absolute() and len(file.parts) <= (2 if grouped else 1) and file.suffix == ".png"
        assert all(0 < len(part.encode()) <= 200 and not part.startswith(".") for part in file.parts)
    folders = {file.parent for file in files.values()}
    assert not folders & set(files.values())
    assert names.plot_files(reversed(metrics), group_by_prefix=grouped) == files


def test_two_metrics_of_one_name_get_two_files():
    files = names.plot_files(["a/b", "a_b", "a\\b"])
    assert files["a_b"] == PurePosixPath("a_b.png")
    assert len(set(files.values())) == 3
    assert len({str(file).lower() for file in names.plot_files(["a_b", "A_b"]).values()}) == 2
    assert names.plot_files(["a/b"])["a/b"] == PurePosixPath("a_b.png")
    later = names.plot_files(["a_b"], taken={"a_b.png": "a/b"})["a_b"]
    assert later != PurePosixPath("a_b.png") and str(later).startswith("a_b-")
    assert names.plot_files(["a/b"], taken={"a_b.png": "a/b"})["a/b"] == PurePosixPath("a_b.png")


def test_long_names_are_cut_and_stay_distinct():
    files = names.plot_files(["x" * 300 + "a", "x" * 300 + "b", "й" * 300])
    assert len(set(files.values())) == 3
    assert all(len(str(file).encode()) <= 200 for file in files.values())


@pytest.mark.parametrize(
    ("metric", "file"),
    [
        ("a/b", "a/a_b.png"),
        ("a/b/c", "a/a_b_c.png"),
        ("top", "top.png"),
        ("../x", "__/___x.png"),
        ("/x", "_x.png"),
        ("a/", "a_.png"),
        ("a.png/b", "a.png_/a.png_b.png"),
        ("metadata.json/b", "metadata.json_/metadata.json_b.png"),
    ],
)
def test_group_by_prefix(metric, file):
    assert names.plot_files([metric], group_by_prefix=True) == {metric: PurePosixPath(file)}


def test_output_folders():
    assert names.output_folder([RUN]) == Path("wandb_plots/me_demo/brave-sun-7_3ti4gf13")
    assert names.output_folder([PlotRun("me", "demo", "id")]) == Path("wandb_plots/me_demo/id")
    assert names.output_folder([RUN, OTHER]) == Path("wandb_plots/me_demo/compare_3ti4gf13_x9")
    evil = names.output_folder([PlotRun("..", "../..", "../../id", "/../name")])
    assert evil.parts[0] == "wandb_plots" and len(evil.parts) == 3 and ".." not in evil.parts
    long = names.output_folder([PlotRun("e" * 300, "p" * 300, "id", "n" * 300)])
    assert all(len(part) <= 200 for part in long.parts) and long.name.endswith("_id")
    many = [PlotRun("me", "demo", f"id{i}") for i in range(50)]
    folder = names.output_folder(many)
    assert folder.name.startswith("compare_50_runs_") and len(folder.name) < 40
    assert folder != names.output_folder(many[:-1]) and folder == names.output_folder(list(many))


# --- plan and options


def test_a_plan_is_a_sentence():
    planned = plan([RUN], ["loss", "a/b", "loss"], PlotOptions(output=Path("~/out")))
    files = {"loss": Path.home() / "out/loss.png", "a/b": Path.home() / "out/a_b.png"}
    pictures = tuple(Picture(metric, (Overlay(metric, (metric,)),), file) for metric, file in files.items())
    assert planned == Plan(Path.home() / "out", (RUN,), files, pictures)
    assert str(planned) == f"draw loss, a/b of me/demo/3ti4gf13 to {Path.home() / 'out'}"


@pytest.mark.parametrize(("runs", "metrics"), [([], ["loss"]), ([RUN], [])])
def test_nothing_to_plan_is_an_error(runs, metrics):
    with pytest.raises(UsageError):
        plan(runs, metrics, PlotOptions())


def test_wrong_options_are_all_named():
    with pytest.raises(UsageError, match=r"--smooth.*--ema-weight.*--viewport-scale"):
        PlotOptions(smooth=-1, ema_weight=NAN, viewport_scale=0.0)


@pytest.mark.parametrize(
    ("options", "smoothing"),
    [
        ({}, "auto"),
        ({"ema": True}, "time_weighted_ema"),
        ({"ema_weight": 0.9}, "time_weighted_ema"),
        ({"viewport_scale": 10.0}, "time_weighted_ema"),
        ({"smoothing": "ema:0.9", "ema_weight": 0.9}, "ema"),
        ({"ema": False}, None),
        ({"smooth": 5}, "rolling_mean"),
        ({"smooth": 5, "ema": False}, "rolling_mean"),
        ({"smooth": 1}, "auto"),
        ({"smooth": 0, "ema": False}, None),
    ],
)
def test_which_smoothing(options, smoothing):
    assert PlotOptions(**options).how().kind == smoothing


def test_runs_of_one_name_are_told_apart():
    assert labels([RUN, OTHER, PlotRun("me", "demo", "z", "")]) == ["brave-sun-7", "calm-sea-8", "z"]
    assert labels([PlotRun("a", "p", "1", "n"), PlotRun("a", "p", "2", "n")]) == ["n (1)", "n (2)"]
    assert labels([PlotRun("a", "p", "1", "n"), PlotRun("b", "p", "1", "n")]) == ["n (a/p/1)", "n (b/p/1)"]
    assert labels([PlotRun("a", "p", "1", "实"), PlotRun("a", "p", "2", "验")], shown=lambda _: "□") == [
        "□ (1)",
        "□ (2)",
    ]
    assert labels([PlotRun("a", "p", "1", "实验"), RUN], shown=drawable_without_fonts) == ["□□ (1)", "brave-sun-7"]


def drawable_without_fonts(name):
    return "".join(char if char.isascii() else "□" for char in name)


# --- which metrics


@pytest.mark.parametrize(
    ("text", "known", "found"),
    [
        ("loss,acc", "loss|acc", ["loss", "acc"]),
        (" loss , acc ,", "loss|acc", ["loss", "acc"]),
        ("we/ird key, with comma", "we/ird key, with comma|loss", ["we/ird key, with comma"]),
        (
            "loss,we/ird key, with comma,acc",
            "we/ird key, with comma|loss|acc",
            ["loss", "we/ird key, with comma", "acc"],
        ),
        ("a,b", "a|b|a,b", ["a,b"]),  # the whole text comes first
        ("a,b,c", "a|b|c|a,b", ["a", "b", "c"]),  # each is known by itself
        ("a,b,c", "a|c|a,b", ["a,b", "c"]),  # b is not
        ("a,b,c", "b|a,b|b,c", ["a,b", "c"]),  # c stays unknown either way
        ("a,b,c,d", "a,b,c|b|d", ["a,b,c", "d"]),
        ("a,,b", "a,,b|a", ["a,,b"]),
        ("a,,b,x", "a,,b|a", ["a,,b", "x"]),
        (" a, b ,x", " a, b |x", [" a, b ", "x"]),  # a name with spaces around it
        ("a,b", "", ["a", "b"]),
        ("los,we/ird", "loss|we/ird, x", ["los", "we/ird"]),
        ("", "loss", []),
        (" , ", "loss", []),
        (",", ",", [","]),
    ],
)
def test_names_in_a_list_may_have_commas(text, known, found):
    assert split_names(text, set(known.split("|")) - {""}) == found


@given(st.lists(st.text("ab, ", min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=6))
def test_known_names_are_found_in_their_list(names):
    found = split_names(",".join(names), set(names))
    assert set(found) <= set(names) | {name.strip() for name in names}
    if not any("," in name for name in names):
        assert [name.strip() for name in found] == [name.strip() for name in names]


def test_a_long_list_is_split_at_once():
    start = time.perf_counter()
    assert len(split_names(",".join(f"m{i}" for i in range(5000)), {f"m{i}" for i in range(5000)} | {"a,b,c"})) == 5000
    assert time.perf_counter() - start < 3


@pytest.fixture
def store(tmp_path):
    with StoredRuns(tmp_path / "cache") as one:
        yield one


def add(store, ref, rows, stream=HISTORY):
    assert store.commit([share(ref, store.revision(ref), rows, stream)]) != [None]


A, B = RunRef("me", "demo", "3ti4gf13"), RunRef("me", "demo", "x9")
MEDIA = logged_text("image", 0, '{"_type":"image-file","path":"p"}')


def test_why_a_metric_is_not_drawn(store, tmp_path):
    bins = '{"_type":"histogram","values":[1],"bins":[0,1]}'
    words = [logged_text("note", 0, '"x"'), MEDIA, logged_text("h", 0, bins), ("none", 0, Kind.NULL, NAN, None)]
    add(store, A, [number("loss", 0, 1.0), *words])
    add(store, B, [number("only", 0, 1.0)])
    results = generate(
        [RUN, OTHER],
        ["note", "image", "h", "none", "only", "loss"],
        PlotOptions(output=tmp_path),
        load=lambda run, key, axis: query.points(store, RunRef(run.entity, run.project, run.run_id), key, axis),
        now=NOW,
    )
    assert [result.skipped[0] for result in results] == [
        "note of me/demo/3ti4gf13: not numeric, its type is string",
        "image of me/demo/3ti4gf13: not numeric, its type is image-file",
        "h of me/demo/3ti4gf13: not numeric, its type is histogram",
        "none of me/demo/3ti4gf13: nothing but None was logged",
        "only of me/demo/3ti4gf13: not logged",
        "loss of me/demo/x9: not logged",
    ]
    assert results[0].error == "note of me/demo/3ti4gf13: not numeric, its type is string (and 1 more)"
    assert [result.path is None for result in results] == [True] * 4 + [False] * 2
    assert query.points(store, A, "loss", "step")[1].tolist() == [1.0]


@pytest.mark.parametrize(
    ("rows", "samples", "refs", "message", "hint"),
    [
        ([MEDIA], [], [A], "no numeric metric in me/demo/3ti4gf13", "there is image (image-file)"),
        ([], [], [A, B], "no numeric metric in any of the 2 runs", "nothing was logged"),
        ([], [number("system.cpu", 0, 1.0)], [A], "no numeric metric", "see --include-system"),
    ],
)
def test_all_metrics_of_runs_without_any(store, rows, samples, refs, message, hint):
    add(store, A, rows)
    add(store, A, samples, SYSTEM)
    add(store, B, [])
    with pytest.raises(NotFound, match=message) as caught:
        metrics.plot_metrics(store, refs, [], all_metrics=True, include_system=False)
    assert hint in caught.value.hint


def test_what_counts_samples(store):
    samples = [number("system.cpu", 0, 1.0), number("system.gpu", 0, 1.0), number("_timestamp", 0, 1.0)]
    add(store, A, [number("loss", 0, 1.0), number("_timestamp", 0, 1.0)])
    add(store, A, samples, SYSTEM)
    add(store, B, [number("system.gpu", 0, 1.0), number("system/x", 0, 1.0)])
    found = {key: metrics.is_sampled(store, [A, B], key) for key in metrics.known_metrics(store, [A, B])}
    assert [key for key, sampled in found.items() if sampled] == ["system.cpu"]
    assert metrics.is_sampled(store, [A], "system.gpu"), "the other run logged it by itself"


# --- files


class Cache:
    """What `load` reads: values by run_id and metric."""

    def __init__(self, **runs):
        self.runs = runs

    def __call__(self, run, metric, axis="step"):
        values = np.array(self.runs.get(run.run_id, {}).get(metric, []), dtype=np.float64)
        return np.arange(len(values)) * 10, values


def spy(monkeypatch):
    seen = []
    real = picture.draw_panel

    def draw(panel, **how):
        seen.append((panel.series, {"title": panel.title, "subtitle": panel.subtitle}))
        return real(panel, **how)

    monkeypatch.setattr(picture, "draw_panel", draw)
    return seen


EMA = "brave-sun-7 · time-weighted EMA"
CACHE = Cache(
    **{
        "3ti4gf13": {"loss": [3, 1, NAN, 0.2], "a/b": [1, 2], "bad": [NAN, INF], "huge": [M, -M]},
        "x9": {"loss": [4, 2], "only": [5]},
    }
)


def test_generate_for_one_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = generate([RUN], ["loss", "a/b"], PlotOptions(), load=CACHE, now=NOW)
    folder = Path("wandb_plots/me_demo/brave-sun-7_3ti4gf13")
    assert (first.metric, first.path, first.runs) == ("loss", folder / "loss.png", (RUN,))
    assert (first.points, first.non_finite, first.skipped, first.error) == ((4,), (1,), (), None)
    assert second.path == folder / "a_b.png"
    assert sorted(path.name for path in folder.iterdir()) == ["a_b.png", "loss.png", "metadata.json"]
    assert image((folder / "loss.png").read_bytes()).size == (1200, 720)
    umask = os.umask(0)
    os.umask(umask)
    assert (folder / "loss.png").stat().st_mode & 0o777 == 0o666 & ~umask
    found = json.loads((folder / "metadata.json").read_text())
    how = {"smoothing": "auto", "smoothing_window": None, "ema_weight": None, "viewport_scale": None}
    run = {"entity": "me", "project": "demo", "run_id": "3ti4gf13", "display_name": "brave-sun-7"}
    plot = {
        "runs": ["me/demo/3ti4gf13"],
        "skipped": [],
        "generation_timestamp": NOW.isoformat(),
        **how,
        "axis": "step",
        "data": None,
        "labels": None,
        "groups": None,
        "facets": None,
        "strata": None,
        "colours": {"me/demo/3ti4gf13": 0},
        "drawing": PlotOptions().drawing(),
    }
    plot = json.loads(json.dumps(plot))
    words = ["wandbsync", "generate-plots", "me/demo", "3ti4gf13", "--metrics"]
    assert found == {
        "run_id": "3ti4gf13",
        "run_name": "brave-sun-7",
        "run_ids": ["3ti4gf13"],
        "run_names": ["brave-sun-7"],
        "entity": "me",
        "project": "demo",
        "generation_timestamp": "2026-01-02T03:04:05+00:00",
        "full_resolution": False,
        "ema_enabled": False,
        **how,
        "group_by_prefix": False,
        "all_metrics": False,
        "include_system": False,
        "metrics_plotted": ["loss", "a/b"],
        "plots_generated": ["loss.png", "a_b.png"],
        "plot_count": 2,
        "data_points": [4],
        "runs": [run],
        "plots": {
            "loss.png": {
                "metric": "loss",
                "points": {"me/demo/3ti4gf13": 4},
                "non_finite": {"me/demo/3ti4gf13": 1},
                "command": [*words, "loss"],
                **plot,
            },
            "a_b.png": {
                "metric": "a/b",
                "points": {"me/demo/3ti4gf13": 2},
                "non_finite": {"me/demo/3ti4gf13": 0},
                "command": [*words, "a/b"],
                **plot,
            },
        },
        "wandbsync_version": wandbsync.__version__,
    }


def test_the_same_again_gives_the_same_bytes(tmp_path):
    def make():
        (result,) = generate([RUN, OTHER], ["loss"], PlotOptions(output=tmp_path), load=CACHE, now=NOW)
        return result.path.read_bytes(), (tmp_path / "metadata.json").read_bytes()

    assert make() == make()


def test_generate_for_several_runs(tmp_path, monkeypatch):
    seen = spy(monkeypatch)
    results = generate([RUN, OTHER, RUN], ["loss", "only"], PlotOptions(output=tmp_path), load=CACHE, now=NOW)
    assert [result.runs for result in results] == [(RUN, OTHER), (OTHER,)]
    assert results[1].skipped == ("only of me/demo/3ti4gf13: no value",)
    (series, said), (partly, partly_said) = seen
    assert [one.label for one in series] == ["brave-sun-7", "calm-sea-8"]
    assert series[1].x.tolist() == [0, 10] and series[1].y.tolist() == [4, 2]
    assert said == {"title": "loss", "subtitle": "2 runs · as logged"}
    assert len(partly) == 2 and partly_said["subtitle"].startswith("1 of 2 runs")
    found = json.loads((tmp_path / "metadata.json").read_text())
    assert found["run_id"] is None and found["run_ids"] == ["3ti4gf13", "x9"]
    assert found["data_points"] == [4, 2]
    assert found["plots"]["only.png"]["skipped"] == ["only of me/demo/3ti4gf13: no value"]


@pytest.mark.parametrize(
    ("options", "smooth", "subtitle"),
    [
        ({}, None, "brave-sun-7 · as logged"),
        (
            {"ema": True},
            lambda x, y: time_weighted_ema(x, y, weight=0.99),
            f"{EMA} 0.99, lags",
        ),
        (
            {"ema_weight": 0.5, "viewport_scale": 3.0},
            lambda x, y: time_weighted_ema(x, y, weight=0.5, viewport_scale=3.0),
            f"{EMA} 0.5, lags",
        ),
        ({"smooth": 2}, lambda x, y: rolling_mean(y, 2), "brave-sun-7 · mean of the last 2 values, lags"),
        ({"ema": False}, None, "brave-sun-7 · as logged"),
    ],
)
def test_options_reach_the_line(tmp_path, monkeypatch, options, smooth, subtitle):
    seen = spy(monkeypatch)
    generate([RUN], ["loss"], PlotOptions(output=tmp_path, **options), load=CACHE, now=NOW)
    (((one,), said),) = seen
    assert said["subtitle"] == subtitle
    if smooth is None:
        assert one.smooth is None
    else:
        assert np.array_equal(one.smooth, smooth(one.x, one.y), equal_nan=True)


def test_one_metric_that_cannot_be_drawn_stops_no_other(tmp_path):
    results = generate(
        [RUN], ["bad", "none", "huge", "loss"], PlotOptions(output=tmp_path / "new" / "folder"), load=CACHE, now=NOW
    )
    assert [result.path and result.path.name for result in results] == [None, None, "huge.png", "loss.png"]
    assert results[0].error == "bad of me/demo/3ti4gf13: no finite value"
    assert results[1].error == "none of me/demo/3ti4gf13: no value"
    found = json.loads((tmp_path / "new" / "folder" / "metadata.json").read_text())
    assert found["metrics_plotted"] == ["huge", "loss"] and found["plot_count"] == 2


@pytest.mark.parametrize("where", ["load", "draw", "axis"])
def test_a_metric_with_a_bug_stops_no_other(tmp_path, monkeypatch, where):
    real = picture.draw_panel

    def draw(panel, **how):
        return wrong(panel.title) or real(panel, **how)

    def wrong(metric, at="draw"):
        if metric == "a/b" and where == at:
            raise ValueError("math domain error")

    monkeypatch.setattr(picture, "draw_panel", draw)
    first, second = generate(
        [RUN],
        ["a/b", "loss"],
        PlotOptions(output=tmp_path),
        load=lambda run, metric, axis: wrong(metric, "load") or CACHE(run, metric),
        axis=lambda metric: wrong(metric, "axis") or "step",
        now=NOW,
    )
    assert (first.path, first.error) == (None, "a/b cannot be drawn: ValueError: math domain error")
    assert second.path == tmp_path / "loss.png"
    assert json.loads((tmp_path / "metadata.json").read_text())["metrics_plotted"] == ["loss"]


def test_metrics_of_the_machine_count_samples(tmp_path, monkeypatch):
    seen = spy(monkeypatch)
    cache = Cache(**{"3ti4gf13": {"system.cpu": [1, 2], "system/x": [1, 2], "loss": [1, 2]}})
    metrics = ["system.cpu", "system/x", "loss"]
    options = PlotOptions(output=tmp_path)
    generate([RUN], metrics, options, load=cache, now=NOW)
    assert [series[0].x_label for series, _ in seen] == ["Sample", "Step", "Step"]
    generate([RUN], metrics, options, load=cache, now=NOW, axis=lambda metric: "sample" if metric == "loss" else "step")
    assert [series[0].x_label for series, _ in seen[3:]] == ["Step", "Step", "Sample"]
    assert draw(seen[0][0], title="m").axes[0].get_xlabel() == "Sample"


def test_a_name_no_font_can_show_stands_beside_its_id(tmp_path, monkeypatch):
    seen = spy(monkeypatch)
    strange = PlotRun("me", "demo", "3ti4gf13", "\U000f0000-7")
    generate([strange], ["loss"], PlotOptions(output=tmp_path), load=CACHE, now=NOW)
    generate([strange, OTHER], ["loss"], PlotOptions(output=tmp_path), load=CACHE, now=NOW)
    assert seen[0][1]["subtitle"].startswith("□-7 (3ti4gf13) · ")
    assert [one.label for one in seen[1][0]] == ["□-7 (3ti4gf13)", "calm-sea-8"]
    assert [one.run_id for one in seen[1][0]] == ["3ti4gf13", "x9"]


def test_if_nothing_can_be_drawn_nothing_is_written(tmp_path):
    (result,) = generate([RUN], ["bad"], PlotOptions(output=tmp_path / "out"), load=CACHE, now=NOW)
    assert result.error and not (tmp_path / "out").exists()


def test_a_run_that_cannot_be_read_is_a_reason(tmp_path):
    def load(run, metric, axis):
        if run == OTHER:
            raise NotFound(f"no {metric}", hint="see list-metrics")
        return CACHE(run, metric)

    (result,) = generate([OTHER, RUN], ["loss"], PlotOptions(output=tmp_path), load=load, now=NOW)
    assert result.runs == (RUN,) and result.skipped == ("loss of me/demo/x9: no loss (see list-metrics)",)
    (result,) = generate([OTHER], ["loss"], PlotOptions(output=tmp_path), load=load, now=NOW)
    assert result.error == "loss of me/demo/x9: no loss (see list-metrics)"
    (result,) = generate([OTHER, RUN], ["none"], PlotOptions(output=tmp_path), load=CACHE, now=NOW)
    assert result.error == "none of me/demo/x9: no value (and 1 more)"


def test_group_by_prefix_makes_folders(tmp_path):
    options = PlotOptions(output=tmp_path, group_by_prefix=True)
    results = generate([RUN], ["loss", "a/b"], options, load=CACHE, now=NOW)
    assert [result.path for result in results] == [tmp_path / "loss.png", tmp_path / "a" / "a_b.png"]
    assert json.loads((tmp_path / "metadata.json").read_text())["plots_generated"] == ["loss.png", "a/a_b.png"]


def test_plots_listed_before_stay_listed(tmp_path):
    (tmp_path / "metadata.json").write_text(
        json.dumps({"files_downloaded": ["x.png"], "plots_generated": ["old.png"], "metrics_plotted": ["old"]})
    )
    options = PlotOptions(output=tmp_path)
    generate([RUN], ["loss"], options, load=CACHE, now=NOW)
    generate([OTHER], ["only", "loss"], options, load=CACHE, now=NOW)
    found = json.loads((tmp_path / "metadata.json").read_text())
    assert found["files_downloaded"] == ["x.png"]
    assert found["plots_generated"] == ["old.png", "loss.png", "only.png"]
    assert found["metrics_plotted"] == ["old", "loss", "only"]
    assert found["plot_count"] == 3 and found["run_id"] == "x9"
    assert found["plots"]["loss.png"]["runs"] == ["me/demo/x9"]


def test_a_later_metric_does_not_overwrite_the_plot_of_another(tmp_path):
    options = PlotOptions(output=tmp_path)
    cache = Cache(**{"3ti4gf13": {"a/b": [1, 2], "a_b": [3, 4]}})
    (first,) = generate([RUN], ["a/b"], options, load=cache, now=NOW)
    (second,) = generate([RUN], ["a_b"], options, load=cache, now=NOW)
    assert first.path.name == "a_b.png" and second.path.name.startswith("a_b-")
    again = generate([RUN], ["a_b", "a/b"], options, load=cache, now=NOW)
    assert [result.path for result in again] == [second.path, first.path]


@pytest.mark.parametrize("damage", [b"{", b"[]", b"\xff\xfe", b"", b'{"plots": ' + b"[" * 100_000, b"null"])
def test_a_damaged_metadata_file_is_set_aside(tmp_path, damage):
    for name in ("metadata.json.damaged", "metadata.json.damaged-2"):
        (tmp_path / "metadata.json").write_bytes(damage)
        generate([RUN], ["loss"], PlotOptions(output=tmp_path), load=CACHE, now=NOW)
        assert (tmp_path / name).read_bytes() == damage
        found = json.loads((tmp_path / "metadata.json").read_text())
        assert found["damaged_metadata"] == name and found["plots_generated"] == ["loss.png"]


@pytest.mark.parametrize(
    "odd",
    [{"plots": []}, {"plots_generated": 5, "plots": {"a": 1, "loss.png": {"metric": 3}}}, {"metrics_plotted": [1]}],
)
def test_an_odd_metadata_file_is_no_obstacle(tmp_path, odd):
    (tmp_path / "metadata.json").write_text(json.dumps(odd))
    (result,) = generate([RUN], ["loss"], PlotOptions(output=tmp_path), load=CACHE, now=NOW)
    assert result.path == tmp_path / "loss.png"
    assert json.loads((tmp_path / "metadata.json").read_text())["plot_count"] == 1


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot read"):
        generate([RUN], ["loss"], PlotOptions(output=tmp_path / "file"), load=CACHE, now=NOW)
    (tmp_path / "loss.png").mkdir()
    bad, good = generate([RUN], ["loss", "a/b"], PlotOptions(output=tmp_path), load=CACHE, now=NOW)
    assert "cannot write" in bad.error and good.path
    assert not list(tmp_path.glob(".*"))


def test_writing_leaves_the_old_file_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "loss.png"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(path, b"new", durable=True)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_metadata_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "update", full)
    with pytest.raises(WandbsyncError, match=r"cannot write .*metadata.json: No space"):
        generate([RUN], ["loss"], PlotOptions(output=tmp_path), load=CACHE, now=NOW)


def test_a_figure_for_a_notebook():
    source = Source(CACHE)
    one_metric = compose([RUN, OTHER], ["loss"], PlotOptions(), source)
    assert len(one_metric.axes) == 1 and one_metric.axes[0].get_ylabel() == "loss"
    several = compose([RUN], ["loss", "a/b"], PlotOptions(style="dark", title="both"), source, labels=["x"])
    assert len(several.axes) == 2 and "both" in words(several, "title")
    with pytest.raises(UsageError, match="no finite value"):
        compose([RUN], ["bad"], PlotOptions(), source)
    with pytest.raises(UsageError, match="no run to plot"):
        compose([], ["loss"], PlotOptions(), source)


def crowd(count):
    """Lines with long names, as a sweep gives them."""
    return [
        Series(
            f"lr={0.1 / (i + 1):.3g}-batch={2**i % 1000}-of-a-sweep", np.arange(9), np.arange(9.0) + i, run_id=f"r{i}"
        )
        for i in range(count)
    ]


def apart_on_the_page(fig):
    """All that is written is on the page; names and headings are beside the axes and beside each other."""
    renderer = fig.canvas.get_renderer()
    listed = [child for child in fig.get_children() if isinstance(child, mpl.legend.Legend)]
    wide, high = fig.canvas.get_width_height()
    boxes = {
        str(artist): artist.get_window_extent(renderer) for artist in [*fig.texts, *listed] if artist.get_visible()
    }
    for name, box in boxes.items():
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= wide + 1 and box.y1 <= high + 1, name
        assert not any(box.overlaps(axes.get_window_extent(renderer)) for axes in fig.axes), name
    for heading in [text for text in fig.texts if text.get_gid() in ("title", "subtitle")]:
        beside = [*listed, *(text for text in fig.texts if text.get_gid() == "name")]
        for other in beside:
            assert not boxes[str(heading)].overlaps(boxes[str(other)]), (heading, other)
    for axes in fig.axes:
        window = axes.get_window_extent(renderer)
        assert window.width > 0.25 * wide / len(fig.axes) and window.height > 0.25 * high / len(fig.axes)
    return listed


@pytest.mark.parametrize("count", [1, 8, 12, 40])
@pytest.mark.parametrize("size", [(1.5, 1.5), (3.0, 2.0), (3.0, 10.0), (20.0, 2.0), (8.0, 4.8)])
def test_names_are_never_over_the_data(size, count):
    for kind in ("screen", "paper"):
        look = style.look_of(PlotOptions(size=size, style=kind, dpi=150))
        panel = figure.Panel(series=crowd(count), title="a title " * 30, subtitle="and what is said of it " * 20)
        fig = figure.draw_panel(panel, look=look, wider=False)
        png(fig)
        apart_on_the_page(fig)


@pytest.mark.parametrize("size", [(1.5, 1.5), (4.0, 3.0), (8.0, 4.8)])
def test_as_many_names_stand_above_the_axes_as_there_is_room_for(size):
    look = style.look_of(PlotOptions(size=size))
    fig = figure.draw_panel(figure.Panel(series=crowd(12), title="groups", key="above"), look=look, wider=False)
    png(fig)
    apart_on_the_page(fig)
    said = words(fig, "name")
    assert len(said) == 12 or said[-1] == f"… and {12 - len(said) + 1} more"


@pytest.mark.parametrize(("count", "size"), [(50, None), (50, (6.0, 4.0)), (5, (2.0, 2.0)), (200, None)])
def test_the_names_of_a_grid_leave_room_for_its_panels(count, size):
    look = style.look_of(PlotOptions(size=size, grid=True))
    panels = [figure.Panel(series=crowd(count), title=name, metric=name) for name in ("one", "two")]
    fig, _ = figure.draw_grid(panels, title="grid", look=look, size=size)
    png(fig)
    apart_on_the_page(fig)
    said = words(fig, "name")
    assert len(said) == count or said[-1] == f"… and {count - len(said) + 1} more"
    assert size is not None or len(said) >= 30


def test_the_panels_of_a_grid_have_their_units():
    fig, _ = figure.draw_grid([figure.Panel(series=[one([1, 2])], title="loss", y_unit="nats")], title="grid")
    assert words(fig, "title") == ["grid", "loss (nats)"]


def test_what_is_outside_of_the_x_that_is_asked_for():
    left, right = one([1, 2, 3], label="left"), one([4, 5, 6], x=[100, 101, 102], label="right")
    with pytest.raises(UsageError, match="m has no value from 5000 to 6000"):
        draw([left, right], title="m", view=View(x=(5000.0, 6000.0)))
    with pytest.raises(UsageError, match="no value from -9 to -8"):
        draw([left], title="m", view=View(x=(-9.0, -8.0)))
    fig = draw([left, right], title="m", view=View(x=(50.0, 200.0)))
    assert words(fig, "subtitle") == ["1 line not within this x"] and words(fig, "name") == ["6"]
    between = draw([left], title="m", view=View(x=(0.2, 0.4)))
    assert lines(between)["line-0"].get_xdata().tolist() == [0, 1], "a line goes through, though no point is within"


def test_what_a_logarithmic_x_cannot_show_is_counted():
    fig = draw([one([5, 6, 7], x=[0, 1, 10])], title="m", view=View(log_x=True))
    assert words(fig, "subtitle") == ["1 value at x ≤ 0 not drawn"]
    assert words(draw([one([5, 6], x=[1, 10])], title="m", view=View(log_x=True)), "subtitle") == [""]


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize(
    "x", [[0.0, 1e6 + 0.001], [1e6, 1e6 + 0.002], [1.7e9, 1.7e9 + 1.0], [1.7e9, 1.7e9 + 300.0], [1.7e9, 2.1e9]]
)
def test_no_tick_of_x_is_cut_off(x, small):
    for time_x in (False, True):
        panel = figure.Panel(series=[one([1, 2], x=x)] * 2, title="m", time_x=time_x, key="above")
        if small:
            fig, _ = figure.draw_grid([panel] * 5, title="g", size=(7.0, 5.0))
        else:
            fig = figure.draw_panel(panel, look=style.look_of(PlotOptions(size=(4.0, 3.0))), wider=False)
        png(fig)
        renderer, wide = fig.canvas.get_renderer(), fig.canvas.get_width_height()[0]
        for axes in fig.axes:
            boxes = [label.get_window_extent(renderer) for label in axes.get_xticklabels() if label.get_text()]
            assert boxes and all(box.x0 >= 0 and box.x1 <= wide for box in boxes)
            assert all(a.x1 + 8 < b.x0 for a, b in pairwise(boxes))
            assert not time_x or ticks(axes.xaxis)[0]


def test_limits_as_far_apart_as_can_be():
    fig = draw([one([1, 2])], title="m", view=View(y=(-1e308, 1e308)))
    png(fig)
    assert ticks(fig.axes[0].yaxis) == ["−1e308", "−5e307", "0", "5e307", "1e308"]
    with pytest.raises(UsageError, match=r"the x axis would go from -1e\+308 to 1e\+308"):
        draw([one([1, 2])], title="m", view=View(x=(-1e308, 1e308)))


def test_steps_of_any_size_fill_the_axis():
    fig = draw([one(np.arange(1000.0), x=2**60 + np.arange(1000) * 1000)], title="m")
    low, high = fig.axes[0].get_xlim()
    assert high - low < 1.1e6


@pytest.mark.parametrize(
    ("days", "texts"),
    [
        (10, ["Nov 15", "Nov 17", "Nov 19", "Nov 21", "Nov 23"]),
        (120, ["Dec 2023", "Jan 2024", "Feb 2024", "Mar 2024"]),
        (1200, ["Jan 2024", "Jul 2024", "Jan 2025", "Jul 2025", "Jan 2026", "Jul 2026", "Jan 2027"]),
        (12000, ["2025", "2030", "2035", "2040", "2045", "2050", "2055"]),
    ],
)
def test_long_times_have_ticks_where_months_and_years_begin(days, texts):
    start = datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc).timestamp()
    ticks, said = time_ticks(start, start + days * 86400.0, 7)
    assert said == texts
    for tick in ticks:
        moment = datetime.fromtimestamp(tick, timezone.utc)
        assert (moment.hour, moment.minute) == (0, 0) and (days < 100 or moment.day == 1)


def test_times_of_all_years_there_are_have_ticks():
    for high in (1e10, 1e11, 1e18):
        for most in (7, 3, 1):
            ticks, said = time_ticks(-1e18, high, most)
            assert len(ticks) == len(said) <= 8


def test_decades_are_counted_in_round_numbers():
    ticks, _ = log_ticks(1e-303, 1.0)
    assert [tick_texts([tick])[0] for tick in ticks] == ["1e-300", "1e-250", "1e-200", "1e-150", "1e-100", "1e-50", "1"]


def test_a_band_goes_down_to_the_bottom_of_a_logarithmic_axis():
    middle, away = np.array([100.0, 10.0, 1.0, 0.1, NAN]), np.array([1.0, 10.0 - 1e-9, 1.5, 0.2, NAN])
    for view in (View(), View(log_y=True)):
        band = (middle - away, middle + away)
        fig = draw([Series("a", np.arange(5), middle, bands=(band,))], title="loss", view=view)
        low, _ = fig.axes[0].get_ylim()
        assert fig.axes[0].get_yscale() == "log" and 0.01 < low < 0.1
        (area,) = fig.axes[0].collections
        corners = area.get_paths()[0].vertices
        assert corners[:, 0].max() == 3 and corners[:, 1].min() == pytest.approx(low)
        png(fig)


def test_a_band_that_has_one_edge_only_is_none_there():
    edges = np.array([1.0, -INF, 0.5]), np.array([2.0, 3.0, INF])
    fig = draw([Series("a", np.arange(3), np.ones(3), bands=(edges,))], title="m")
    (area,) = fig.axes[0].collections
    assert np.isfinite(area.get_paths()[0].vertices).all()


def test_every_band_is_named_once():
    runs, source = [RUN, OTHER], Source(CACHE)
    for bands, said in (
        (("ci", "std", "std", "none", "sem"), "95 % CI (dark), ± std (light), ± std. error (light)"),
        (("none", "std"), "by group, ± std"),
        (("none",), "mean by group"),
    ):
        fig = compose(runs, ["loss"], PlotOptions(bands=bands), source, groups=["a", "a"])
        assert words(fig, "subtitle")[0].endswith(said)


def test_the_panels_of_a_grid_stand_in_line() -> None:
    rng = np.random.default_rng(0)
    panels = [
        figure.Panel(series=[one(rng.random(50) * size)], title=f"size {size:g}")
        for size in (1.0, 1e-300, 12345.0, 1.0, 3.0, 1e9, 0.1)
    ]
    page, reasons = figure.draw_grid(panels, title="grid")
    assert reasons == [None] * len(panels)
    places = [axes.get_position() for axes in page.axes]
    for i, place in enumerate(places):
        assert (place.x0, place.x1) == pytest.approx((places[i % 3].x0, places[i % 3].x1))
        assert (place.y0, place.y1) == pytest.approx((places[i // 3 * 3].y0, places[i // 3 * 3].y1))


def test_a_picture_without_pixels_is_no_larger_than_paper_can_show() -> None:
    noisy = one(np.random.default_rng(0).normal(size=100_000))
    sizes = {}
    for form in ("svg", "pdf"):
        look = style.look_of(PlotOptions(format=form))
        page = draw([noisy], title="t", look=look)
        (ink,) = (artist for artist in page.axes[0].get_children() if artist.get_gid() == "line-0")
        corners = ink.get_path().vertices
        across = 8.0 * style.VECTOR  # columns, above and below
        assert 0.5 * across < len(corners) / 2 < across
        sizes[form] = len(png(page, form, look))
    assert sizes["svg"] < 200_000 and sizes["pdf"] < 100_000
