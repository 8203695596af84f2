"""Pictures of many runs: groups that end apart, intervals, profiles, heat maps, facets, several devices."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rows import RECORD, number, share

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.errors import UsageError, WandbsyncError
from wandbsync.figures import shown
from wandbsync.model import SYSTEM, RunRef
from wandbsync.plot import PlotOptions, PlotRun, Source, compose, options, picture, profile
from wandbsync.plot.groups import combine
from wandbsync.plot.heatmap import HeatMap, cells
from wandbsync.plot.panel import Panel, Series
from wandbsync.plot.plan import Overlay, overlaid
from wandbsync.plot.scale import View
from wandbsync.plot.stats.resampling import KINDS, bootstrap, middle, statistic
from wandbsync.plot.stats.resampling import profile as above
from wandbsync.plot.units import unit_of

NAN = math.nan


def runs(count: int) -> list[PlotRun]:
    return [PlotRun("e", "p", f"r{i}", f"some-model-lr={i}-end") for i in range(count)]


def source(values: dict[str, Any], metric: str = "m") -> Source:
    """The values of runs by run_id, at steps from 0."""

    def load(run: PlotRun, key: str, axis: str) -> tuple[Any, Any]:
        y = np.asarray(values[run.run_id], np.float64)
        return np.arange(len(y)), y

    return Source(load)


def drawn(figure: Any) -> dict[str, Any]:
    return {line.get_gid(): line for axes in figure.axes for line in axes.lines if line.get_gid()}


def said(figure: Any, gid: str) -> list[str]:
    return [text.get_text() for text in figure.texts if text.get_gid() == gid]


# -- statistics


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_means_of_values_in_order(kind: str) -> None:
    table = np.random.default_rng(1).normal(size=(11, 40))
    table[3, :5] = table[7, 20:] = NAN
    for column, found in zip(table.T, statistic(table, kind), strict=True):
        values = np.sort(column[~np.isnan(column)])
        cut = int(0.25 * len(values))  # as scipy.stats.trim_mean(values, 0.25) has it
        plain = {
            "mean": values.mean(), "iqm": values[cut : len(values) - cut].mean(), "median": np.median(values),
            "min": values[0], "max": values[-1],
        }  # fmt: skip
        assert found == pytest.approx(plain[kind], rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_bootstrap_is_the_plain_one(kind: str) -> None:
    table = np.random.default_rng(2).normal(size=(9, 3))
    rng = np.random.default_rng(3)
    start, stop = middle(kind, 9)
    found = [np.sort(table[rng.integers(0, 9, 9)], axis=0)[start:stop].mean(axis=0) for _ in range(20_000)]
    low, high = bootstrap(table, kind, times=20_000)
    spread = table.std()
    assert np.allclose([low, high], np.percentile(found, (2.5, 97.5), axis=0), atol=0.1 * spread)
    again = bootstrap(table, kind, times=20_000)
    assert np.array_equal(low, again[0]) and np.array_equal(high, again[1]), "the same every time"


def test_strata_are_resampled_by_themselves() -> None:
    table = np.repeat([[0.0], [100.0]], 5, axis=0)  # two tasks, and no spread within either
    low, high = bootstrap(table, "mean", strata=["a"] * 5 + ["b"] * 5)
    assert low.tolist() == high.tolist() == [50.0]
    low, high = bootstrap(table, "mean")
    assert low[0] < 30 and high[0] > 70


def test_one_run_has_no_interval() -> None:
    table = np.array([[1.0, 2.0], [3.0, NAN]])
    low, high = bootstrap(table, "mean")
    assert low[0] < high[0] and math.isnan(low[1]) and math.isnan(high[1])


def test_a_profile_is_the_share_of_runs_above() -> None:
    tau, table = above(np.array([3.0, 1.0, 3.0, 2.0]))
    assert tau.tolist() == [1, 1, 2, 2, 3, 3] and table.mean(axis=0).tolist() == [1, 0.75, 0.75, 0.5, 0.5, 0]


# -- groups


def test_where_runs_of_a_group_end_the_line_is_another_one() -> None:
    values = {"r0": [0.0] * 100, "r1": [0.0] * 130, "r2": [-6000.0] * 500}
    figure = compose(runs(3), ["m"], PlotOptions(), source(values), groups=["g"] * 3)
    whole, tail = drawn(figure)["line-0"], drawn(figure)["line-1"]
    assert set(whole.get_ydata()) == {-2000.0} and max(whole.get_xdata()) == 99
    assert tail.get_alpha() < 1 and tail.get_linestyle() != "-" and tail.get_color() == whole.get_color()
    y = np.asarray(tail.get_ydata())
    assert set(y[np.isfinite(y)]) == {-3000.0, -6000.0}
    joined = np.isfinite(y[1:]) & np.isfinite(y[:-1])
    assert (y[1:][joined] == y[:-1][joined]).all(), "no line goes down where a run ends"
    assert said(figure, "name") == ["g (n=3…1)"]
    figure = compose(runs(3), ["m"], PlotOptions(require_all=True), source(values), groups=["g"] * 3)
    assert set(drawn(figure)) == {"line-0"} and said(figure, "name") == ["g (n=3)"]


def test_every_line_and_band_of_a_group() -> None:
    members = [(np.arange(4), np.full(4, float(value))) for value in (1, 2, 3, 4, 100)]
    for line in options.LINES:
        found = combine(members, line=line, bands=["bootstrap", "std"], strata=["a"] * 5)
        assert set(found.line) == {{"mean": 22.0, "iqm": 3.0, "median": 3.0, "min": 1.0, "max": 100.0}[line]}
        assert all((low <= high).all() for low, high in found.bands)


def test_the_numbers_of_a_group_say_of_how_many_runs_they_are(tmp_path: Path) -> None:
    from datetime import datetime

    from wandbsync.plot import generate

    values = {"r0": [1.0, 2.0], "r1": [3.0, 4.0, 5.0]}
    wanted = PlotOptions(output=tmp_path, data="csv", bands=("minmax",))
    (result,) = generate(runs(2), ["m"], wanted, source(values), now=datetime(2026, 1, 1), groups=["g", "g"])
    assert result.data
    rows = [
        {name: row[name] for name in ("x", "value", "n")}
        for row in csv.DictReader(result.data.read_text().splitlines())
    ]
    assert rows == [
        {"x": "0", "value": "2", "n": "2"}, {"x": "1", "value": "3", "n": "2"}, {"x": "2", "value": "5", "n": "1"},
    ]  # fmt: skip


# -- many runs


def test_of_many_runs_a_few_stand_out() -> None:
    values = {f"r{i}": [1.0, float(i)] for i in range(20)}
    figure = compose(runs(20), ["m"], PlotOptions(), source(values))
    names = [text.split("  ")[0] for text in said(figure, "name")]
    assert sorted(names, key=lambda name: int(name[3:])) == [f"lr={i}" for i in (0, 1, 2, 17, 18, 19)]
    pale = [line for line in drawn(figure).values() if line.get_alpha() < 0.5]
    assert len(pale) == 14 and len({line.get_color() for line in pale}) == 1
    (subtitle,) = said(figure, "subtitle")
    assert "20 runs of some-model-…" in subtitle and "3 highest, 3 lowest" in subtitle
    for highlight, count in ((0, 20), (1, 2), (10, 20)):
        figure = compose(runs(20), ["m"], PlotOptions(highlight=highlight), source(values))
        assert sum(line.get_alpha() == 1.0 for line in drawn(figure).values()) == count
    figure = compose(runs(19), ["m"], PlotOptions(), source(values))
    assert all(line.get_alpha() == 1.0 for line in drawn(figure).values())


def test_the_same_runs_stand_out_in_all_panels_of_a_grid() -> None:
    values = {f"r{i}": [1.0, float(i)] for i in range(25)}
    figure = compose(runs(25), ["m", "b"], PlotOptions(highlight=1), source(values))
    assert sorted(said(figure, "name")) == ["lr=0", "lr=24"]
    assert "highest, 1 lowest at the end of m" in said(figure, "subtitle")[0]


def test_a_panel_for_each_facet_before_all_the_others() -> None:
    values = {f"r{i}": [1.0, float(i)] for i in range(6)}
    figure = compose(
        runs(6), ["m"], PlotOptions(facet="config.a"), source(values), facets=["x", "x", "y", "y", "y", "z"]
    )
    assert said(figure, "title") == ["m", "x (n=2)", "y (n=3)", "z (n=1)"]
    assert len({axes.get_ylim() for axes in figure.axes}) == len({axes.get_xlim() for axes in figure.axes}) == 1
    for axes, count in zip(figure.axes, (2, 3, 1), strict=True):
        own = [line for line in axes.lines if line.get_alpha() > 0.5]
        assert len(own) == count and len(axes.lines) == 6 and len({line.get_color() for line in own}) == 1
    by = {"facets": ["x", "x", "x", "y", "y", "y"], "groups": ["a", "a", "b", "a", "b", "b"]}
    figure = compose(runs(6), ["m"], PlotOptions(facet="config.a", group_by="config.b"), source(values), **by)
    assert said(figure, "name") == ["a", "b"], "one list for all"
    with pytest.raises(UsageError, match="makes 25 panels, and a page has 24"):
        compose(
            runs(25), ["m"], PlotOptions(facet="tags"), source({f"r{i}": [1.0] for i in range(25)}),
            facets=[f"f{i}" for i in range(25)],
        )  # fmt: skip


def heat(values: list[list[float]], **more: Any) -> HeatMap:
    series = [Series(f"r{i}", np.arange(len(y)), np.array(y), run_id=f"r{i}") for i, y in enumerate(values)]
    return HeatMap(Panel(series=series, title="m", view=more.pop("view", View())), **more)


def test_a_heat_map_has_the_values_and_nothing_where_there_are_none() -> None:
    found = cells(heat([[1.0, 2.0, 3.0, 4.0], [5.0, NAN, 6.0, NAN], [9.0]]))
    assert found.order == [2, 1, 0], "the highest last value at the top"
    first, second, third = (row[np.isfinite(row)].tolist() for row in found.values)
    assert (set(first), set(second), set(third)) == ({9.0}, {5.0, 6.0}, {1.0, 2.0, 3.0, 4.0})
    assert np.isnan(found.values[0][1:]).all(), "after its last value there is nothing"
    assert cells(heat([[1.0], [5.0], [3.0]], groups=["b", "b", "a"])).order == [2, 1, 0]
    with pytest.raises(UsageError, match="no value"):
        cells(heat([[NAN]]))
    with pytest.raises(UsageError, match="beyond 1e\\+150"):
        cells(heat([[1.0, -1e300]]))


@pytest.mark.parametrize("style", ["screen", "paper", "dark"])
@pytest.mark.parametrize("y", [[1.0, 1.0], [1e-9, 1e9], [-5.0, 5.0], [0.5]])
def test_any_heat_map_is_drawn_on_its_page(style: str, y: list[float]) -> None:
    values = {f"r{i}": y for i in range(30)}
    wanted = PlotOptions(kind="heatmap", style=style)
    figure = compose(runs(30), ["loss"], wanted, source(values))
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    cells_axes, bar = figure.axes
    assert len(cells_axes.get_yticklabels()) == 30 and cells_axes.get_yticklabels()[0].get_text().startswith("lr=")
    for text in [*cells_axes.get_yticklabels(), *bar.get_yticklabels(), *figure.texts]:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width and box.y1 <= height, text


def test_a_performance_profile() -> None:
    values = {f"r{i}": [9.0, float(i), NAN] for i in range(6)}
    groups = ["a", "a", "a", "b", "b", "b"]
    figure = compose(runs(6), ["m"], PlotOptions(kind="profile"), source(values), groups=groups)
    x, y = drawn(figure)["line-0"].get_data()
    assert dict(zip(x[2::2], y[2::2], strict=False)) == {0.0: 2 / 3, 1.0: 1 / 3, 2.0: 0.0}
    assert figure.axes[0].get_xlabel() == "last value of m" and said(figure, "name") == ["a (n=3)", "b (n=3)"]
    figure = compose(runs(6), ["m"], PlotOptions(kind="profile", score="max"), source(values))
    assert said(figure, "name") == ["all runs (n=6)"] and set(drawn(figure)["line-0"].get_xdata()) == {9.0}


def test_every_kind_and_score_is_known_where_it_is_needed() -> None:
    assert tuple(picture.KINDS) == options.KINDS and tuple(profile.SCORES) == options.SCORES
    assert set(picture.BAND_NAMES) == set(options.BANDS) - {"none"} and set(KINDS) == set(options.LINES)


# -- the machine


def test_devices_of_one_kind_are_in_one_panel() -> None:
    metrics = ["loss", "system.gpu.1.temp", "system.cpu", "system.gpu.0.temp", "system.gpu.0.powerWatts"]
    gpus = Overlay("system.gpu.*.temp", ("system.gpu.0.temp", "system.gpu.1.temp"))
    assert overlaid(metrics)[:3] == (Overlay("loss", ("loss",)), gpus, Overlay("system.cpu", ("system.cpu",)))
    assert gpus.parts == ("GPU 0", "GPU 1") and overlaid(metrics)[3].parts == ("",)


@pytest.mark.parametrize(
    ("metric", "largest", "unit"),
    [
        ("system.gpu.*.gpu", 97, ("%", 1)),
        ("system.gpu.0.powerWatts", 700, ("W", 1)),
        ("system.gpu.0.temp", 70, ("°C", 1)),
        ("system.gpu.*.memoryAllocatedBytes", 7e10, ("GB", 1e9)),
        ("system.network.recv", 5e3, ("kB", 1e3)),
        ("system.proc.memory.rssMB", 900, ("MB", 1)),
        ("system.disk./.usageGB", 900, ("GB", 1)),
        ("system.gpu.0.smClock", 1900, ("MHz", 1)),
        ("system.proc.cpu.threads", 12, ("", 1)),
        ("train/temp", 12, ("", 1)),
    ],
)
def test_units_of_the_machine(metric: str, largest: float, unit: tuple[str, float]) -> None:
    assert unit_of(metric, largest) == unit


@pytest.fixture
def machine(tmp_path: Path) -> Cache:
    """A run as the Trainer of Hugging Face logs it: every metric has a step metric, the machine's too."""
    cache = Cache(tmp_path / "cache")
    record = type(RECORD)(
        "finished", "local", display_name="hf",
        metadata={"define_metric": {"*": {"step_metric": "train/global_step", "step_sync": True}}},
    )  # fmt: skip
    ref = RunRef("e", "p", "r")
    history = [number(key, i, i * 10.0) for i in range(3) for key in ("train/global_step", "loss")]
    system = [number("_timestamp", i, 1e9 + 60 * i) for i in range(5)]
    system += [number(f"system.gpu.{gpu}.memoryAllocatedBytes", i, 4e10 + gpu) for gpu in (0, 1) for i in range(5)]
    (revision,) = cache.commit([share(ref, None, history, record=record)])
    cache.commit([share(ref, revision, system, SYSTEM, record=record)])
    return cache


def test_the_machine_is_drawn_against_the_time_since_the_run_began(machine: Cache) -> None:
    ref, asked = RunRef("e", "p", "r"), "system.gpu.*.memoryAllocatedBytes"
    assert query.axis_of(machine, [ref], "loss") == "train/global_step"
    metrics = query.plot_metrics(machine, [ref], [asked], all_metrics=False, include_system=False)
    assert metrics == ["system.gpu.0.memoryAllocatedBytes", "system.gpu.1.memoryAllocatedBytes"]
    wanted = PlotOptions()
    found = shown(machine, [ref], wanted)
    figure = compose(found.runs, metrics, wanted, found.source)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "Relative time (minutes)" and axes.get_ylabel() == f"{asked} (GB)"
    x, y = drawn(figure)["line-1"].get_data()
    assert list(x) == [0, 1, 2, 3, 4] and set(y) == {40.000000001}
    assert [name.split("  ")[0] for name in said(figure, "name")] == ["GPU 0", "GPU 1"]
    assert query.axis_of(machine, [ref], metrics[0], "step") == "sample"


def test_what_fits_no_metric_is_said(machine: Cache) -> None:
    with pytest.raises(WandbsyncError, match="no metric system"):
        query.plot_metrics(machine, [RunRef("e", "p", "r")], ["system.tpu.*"], all_metrics=False, include_system=False)
