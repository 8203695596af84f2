"""Drawing: the rules of the axes, what a figure holds, where files go, what metadata.json says."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import time
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path, PurePosixPath

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import wandbsync
from wandbsync.errors import NotFound, UsageError, WandbsyncError
from wandbsync.plot import PlotOptions, PlotRun, figure, generate, names, record, style
from wandbsync.plot.figure import Series, draw, png
from wandbsync.plot.frame import apart
from wandbsync.plot.plan import Plan, labels, plan
from wandbsync.plot.smoothing import rolling_mean, time_weighted_ema
from wandbsync.plot.text import drawable, shorten
from wandbsync.plot.ticks import linear_ticks, log_ticks, tick_texts, value_text

NAN, INF = math.nan, math.inf
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
RUN = PlotRun("me", "demo", "3ti4gf13", "brave-sun-7")
OTHER = PlotRun("me", "demo", "x9", "calm-sea-8")


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


def picture(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


# --- the y axis


@pytest.mark.parametrize(
    ("metric", "y", "log"),
    [
        ("train/loss", [0.1, 1.1], True),
        ("Loss/Total", [0.1, 1.1], True),
        ("loss", [0.1, 1.0], False),  # one order of magnitude is not more than one
        ("loss", [0.0, 0.1, 1.1], True),  # the positive values decide
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
    runs = [one([1.0, 1.0], smooth=smooth)] * 4 + [one([0.05, 1.0], smooth=smooth)]
    assert draw(runs, title="loss").axes[0].get_yscale() == "log"
    assert draw(runs[:4], title="loss").axes[0].get_yscale() == "linear"


def test_the_limits_hold_what_is_drawn_and_little_more():
    axes = draw([one([3.0, 7.0, 5.0])], title="m").axes[0]
    low, high = axes.get_ylim()
    assert 2.8 < low < 3.0 and 7.0 < high < 7.2
    low, high = axes.get_xlim()
    assert -0.1 < low < 0 and 2 < high < 2.1
    low, high = draw([one([0.01, 10.0])], title="loss").axes[0].get_ylim()
    assert 0.005 < low < 0.01 and 10 < high < 20


# --- the lines


def test_the_smoothing_is_drawn_over_the_faint_values():
    drawn = lines(draw([one([1.0, 5.0, 3.0], smooth=[1.0, 2.0, 3.0])], title="m"))
    assert set(drawn) == {"raw-0", "line-0"}
    assert drawn["raw-0"].get_ydata().tolist() == [1.0, 5.0, 3.0]
    assert drawn["line-0"].get_ydata().tolist() == [1.0, 2.0, 3.0]
    assert drawn["line-0"].get_xdata().tolist() == [0, 1, 2]
    assert drawn["raw-0"].get_alpha() < 0.3 and drawn["line-0"].get_alpha() == 1.0
    assert drawn["raw-0"].get_zorder() < drawn["line-0"].get_zorder()
    assert drawn["raw-0"].get_linewidth() < drawn["line-0"].get_linewidth()
    assert drawn["raw-0"].get_color() == drawn["line-0"].get_color() == "#0072B2"


def test_without_smoothing_there_is_one_full_line():
    drawn = lines(draw([one([1.0, 5.0])], title="m"))
    assert set(drawn) == {"line-0"}
    assert drawn["line-0"].get_alpha() == 1.0


def test_more_than_three_runs_hide_the_faint_values_and_say_so():
    series = [one([1.0, 9.0], smooth=[1.0, 2.0], label=f"r{i}") for i in range(4)]
    three, four = draw(series[:3], title="m"), draw(series, title="m", subtitle="4 runs")
    assert sum(gid.startswith("raw") for gid in lines(three)) == 3
    assert set(lines(four)) == {f"line-{i}" for i in range(4)}
    assert words(four, "subtitle") == ["4 runs · raw values not shown"]
    assert four.axes[0].get_ylim()[1] < 3 < three.axes[0].get_ylim()[1]


def test_gaps_where_a_value_is_not_finite():
    fig = draw([one([1, 2, NAN, INF, 3, 4, -INF], smooth=[1, 2, NAN, NAN, 3, 4, NAN])], title="m", subtitle="r")
    for gid in ("raw-0", "line-0"):
        assert np.isnan(lines(fig)[gid].get_ydata()).tolist() == [False, False, True, True, False, False, True]
    assert words(fig, "subtitle") == ["r · 3 non-finite values not drawn"]
    assert fig.axes[0].get_ylim()[1] < 5
    assert words(draw([one([1, NAN, 2])], title="m"), "subtitle") == ["1 non-finite value not drawn"]


def test_gaps_where_a_logarithm_has_no_value():
    fig = draw([one([1, 0, 0, 100, 10], smooth=[1, 0.5, 0, 20, 10])], title="loss")
    assert np.isnan(lines(fig)["raw-0"].get_ydata()).tolist() == [False, True, True, False, False]
    assert np.isnan(lines(fig)["line-0"].get_ydata()).tolist() == [False, False, True, False, False]
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
    dark = np.asarray(picture(png(fig)).convert("L"))[200:500, 400:900]
    assert (dark < 120).sum() > 50


def test_each_run_has_its_colour_whoever_else_has_values():
    full, empty = one([1, 2], label="full"), one([], label="empty")
    for series in ([full, full, full], [empty, full, full], [one([NAN]), empty, full]):
        assert lines(draw(series, title="m"))[f"line-{sum(s is full for s in series) - 1}"].get_color() == "#009E73"


@pytest.mark.parametrize("count", [1, 7, 8, 36])
def test_lines_can_be_told_apart(count):
    assert len(set(style.strokes(count))) == count


def test_many_strokes_are_no_error():
    assert len(style.strokes(500)) == 500


# --- the words


def test_runs_are_named_at_their_ends():
    fig = draw([one([1, 5], label="up"), one([9, 2], label="down"), one([1, 2.001], label="near")], title="m")
    assert words(fig, "name") == ["up  5", "down  2", "near  2.00"]
    assert [t.get_color() for t in fig.texts if t.get_gid() == "name"] == list(style.FEW[:3])
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
    image = picture(png(fig))
    assert image.size == (width, 720)
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
    assert words(fig, "name")[3].endswith(" 1.00B") and "3  " in words(fig, "name")[3]


@pytest.mark.parametrize(
    "name", ["损失/训练", "Потеря № 1", "απώλεια", "$x^2$ \\frac", "a\nb\tc\0", "خسارة", "😀 🧪", "\ud800", "‮abc", "é́"]
)
def test_any_name_can_be_drawn(name):
    fig = draw([one([1, 2], label=name), one([2, 3], label="b")], title=name, subtitle=name)
    assert picture(png(fig)).size == (1200, 720)


def test_what_can_be_drawn_is_left_alone():
    assert drawable("Loss μ π Потеря απ $x$") == "Loss μ π Потеря απ $x$"
    assert drawable("a\nb\0") == "a b "
    assert drawable("\U000f0000x") == "□x"  # private use: no font has it


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
    assert picture(png(fig)).size == (1200, 720)


def test_values_that_no_axis_can_hold_are_counted():
    assert words(draw([one([1, 1e301, 2])], title="m"), "subtitle") == ["1 non-finite value not drawn"]


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
    assert picture(data).size == (1200, 720)


def test_a_path_too_long_for_agg_is_drawn_in_pieces(monkeypatch):
    seen = []

    class Canvas(figure.FigureCanvasAgg):
        def print_png(self, out, **kwargs):
            seen.append(mpl.rcParams["agg.path.chunksize"])
            if not seen[-1]:
                raise OverflowError("Exceeded cell block limit in Agg")
            super().print_png(out, **kwargs)

    monkeypatch.setattr(figure, "FigureCanvasAgg", Canvas)
    assert picture(png(draw([one([1, 2])], title="m"))).size == (1200, 720)
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
    ],
)
def test_value_text(value, text):
    assert value_text(value) == text


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
    assert planned == Plan(
        Path.home() / "out", (RUN,), {"loss": Path.home() / "out/loss.png", "a/b": Path.home() / "out/a_b.png"}
    )
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
        ({}, "time_weighted_ema"),
        ({"ema": False}, None),
        ({"smooth": 5}, "rolling_mean"),
        ({"smooth": 5, "ema": False}, "rolling_mean"),
        ({"smooth": 1}, "time_weighted_ema"),
        ({"smooth": 0, "ema": False}, None),
    ],
)
def test_which_smoothing(options, smoothing):
    assert PlotOptions(**options).smoothing == smoothing


def test_runs_of_one_name_are_told_apart():
    assert labels([RUN, OTHER, PlotRun("me", "demo", "z", "")]) == ["brave-sun-7", "calm-sea-8", "z"]
    assert labels([PlotRun("a", "p", "1", "n"), PlotRun("a", "p", "2", "n")]) == ["n (1)", "n (2)"]
    assert labels([PlotRun("a", "p", "1", "n"), PlotRun("b", "p", "1", "n")]) == ["n (a/p/1)", "n (b/p/1)"]
    assert labels([PlotRun("a", "p", "1", "实"), PlotRun("a", "p", "2", "验")], shown=lambda _: "□") == [
        "□ (1)",
        "□ (2)",
    ]


# --- files


class Cache:
    """What `load` reads: values by run_id and metric."""

    def __init__(self, **runs):
        self.runs = runs

    def __call__(self, run, metric):
        values = np.array(self.runs.get(run.run_id, {}).get(metric, []), dtype=np.float64)
        return np.arange(len(values)) * 10, values


def spy(monkeypatch):
    seen = []
    real = figure.draw

    def draw(series, **words):
        seen.append((series, words))
        return real(series, **words)

    monkeypatch.setattr(figure, "draw", draw)
    return seen


CACHE = Cache(
    **{
        "3ti4gf13": {"loss": [3, 1, NAN, 0.2], "a/b": [1, 2], "bad": [NAN, INF], "huge": [1e301]},
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
    assert picture((folder / "loss.png").read_bytes()).size == (1200, 720)
    umask = os.umask(0)
    os.umask(umask)
    assert (folder / "loss.png").stat().st_mode & 0o777 == 0o666 & ~umask
    found = json.loads((folder / "metadata.json").read_text())
    how = {"smoothing": "time_weighted_ema", "smoothing_window": None, "ema_weight": 0.99, "viewport_scale": 1000.0}
    run = {"entity": "me", "project": "demo", "run_id": "3ti4gf13", "display_name": "brave-sun-7"}
    plot = {"runs": ["me/demo/3ti4gf13"], "skipped": [], "generation_timestamp": NOW.isoformat(), **how}
    assert found == {
        "run_id": "3ti4gf13",
        "run_name": "brave-sun-7",
        "run_ids": ["3ti4gf13"],
        "run_names": ["brave-sun-7"],
        "entity": "me",
        "project": "demo",
        "generation_timestamp": "2026-01-02T03:04:05+00:00",
        "full_resolution": False,
        "ema_enabled": True,
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
                **plot,
            },
            "a_b.png": {
                "metric": "a/b",
                "points": {"me/demo/3ti4gf13": 2},
                "non_finite": {"me/demo/3ti4gf13": 0},
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
    assert results[1].skipped == ("me/demo/3ti4gf13: no value",)
    (series, said), (partly, partly_said) = seen
    assert [one.label for one in series] == ["brave-sun-7", "calm-sea-8"]
    assert series[1].x.tolist() == [0, 10] and series[1].y.tolist() == [4, 2]
    assert said == {"title": "loss", "subtitle": "2 runs · time-weighted EMA 0.99"}
    assert len(partly) == 2 and partly_said["subtitle"].startswith("1 of 2 runs")
    found = json.loads((tmp_path / "metadata.json").read_text())
    assert found["run_id"] is None and found["run_ids"] == ["3ti4gf13", "x9"]
    assert found["data_points"] == [4, 2]
    assert found["plots"]["only.png"]["skipped"] == ["me/demo/3ti4gf13: no value"]


@pytest.mark.parametrize(
    ("options", "smooth", "subtitle"),
    [
        ({}, lambda x, y: time_weighted_ema(x, y, weight=0.99), "brave-sun-7 · time-weighted EMA 0.99"),
        (
            {"ema_weight": 0.5, "viewport_scale": 3.0},
            lambda x, y: time_weighted_ema(x, y, weight=0.5, viewport_scale=3.0),
            "brave-sun-7 · time-weighted EMA 0.5",
        ),
        ({"smooth": 2}, lambda x, y: rolling_mean(y, 2), "brave-sun-7 · mean of the last 2 values"),
        ({"ema": False}, None, "brave-sun-7"),
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
    assert [result.path and result.path.name for result in results] == [None, None, None, "loss.png"]
    assert results[0].error == "bad has nothing to draw: me/demo/3ti4gf13: no value that can be drawn"
    assert results[1].error == "none has nothing to draw: me/demo/3ti4gf13: no value"
    assert results[2].error == "huge has nothing to draw: me/demo/3ti4gf13: no value that can be drawn"
    found = json.loads((tmp_path / "new" / "folder" / "metadata.json").read_text())
    assert found["metrics_plotted"] == ["loss"] and found["plot_count"] == 1


def test_if_nothing_can_be_drawn_nothing_is_written(tmp_path):
    (result,) = generate([RUN], ["bad"], PlotOptions(output=tmp_path / "out"), load=CACHE, now=NOW)
    assert result.error and not (tmp_path / "out").exists()


def test_a_run_that_cannot_be_read_is_a_reason(tmp_path):
    def load(run, metric):
        if run == OTHER:
            raise NotFound(f"no {metric}", hint="see list-metrics")
        return CACHE(run, metric)

    (result,) = generate([OTHER, RUN], ["loss"], PlotOptions(output=tmp_path), load=load, now=NOW)
    assert result.runs == (RUN,) and result.skipped == ("me/demo/x9: no loss (see list-metrics)",)
    (result,) = generate([OTHER], ["loss"], PlotOptions(output=tmp_path), load=load, now=NOW)
    assert result.error == "loss has nothing to draw: me/demo/x9: no loss (see list-metrics)"


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
        record.write_beside(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_metadata_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "update", full)
    with pytest.raises(WandbsyncError, match=r"cannot write .*metadata.json: No space"):
        generate([RUN], ["loss"], PlotOptions(output=tmp_path), load=CACHE, now=NOW)
