"""Every option of a plot is a flag, and the flags say it back as it was."""

from __future__ import annotations

import csv
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from wandbsync.cli import main_group
from wandbsync.cli.drawing import plot_options
from wandbsync.errors import UsageError
from wandbsync.plot import data
from wandbsync.plot.flags import SECTIONS, flags_of
from wandbsync.plot.names import PlotRun, plot_files
from wandbsync.plot.options import PlotOptions
from wandbsync.plot.panel import Panel, Series
from wandbsync.plot.picture import Drawn

# Of each field a value that is not its default; of the switches, the other one.
VALUES: dict[str, list[Any]] = {
    "kind": ["heatmap", "profile"],
    "score": ["max"],
    "grid": [True],
    "all_metrics": [True],
    "include_system": [True],
    "with_parent": [True],
    "x": ["relative", "train/epoch", "a b"],
    "log_x": [True],
    "log_y": [True, False],
    "x_limits": [(0.1, 1e300), (None, -5.0), (1 / 3, None)],
    "y_limits": [(-1.0, None)],
    "x_unit": ["min"],
    "y_unit": ["m/s²"],
    "clip_outliers": [True, False],
    "smooth": [0, 25],
    "ema": [True, False],
    "ema_weight": [0.1 + 0.2, 0.0],
    "viewport_scale": [1e-9],
    "smoothing": ["gaussian"],
    "smoothing_param": [1 / 7],
    "group_by": [("config.lr",), ("config.opt.name", "tags")],
    "line": ["iqm"],
    "bands": [("bootstrap", "minmax"), ("none",)],
    "require_all": [True],
    "strata": [("config.env",)],
    "facet": [("config.arch", "group")],
    "label": ["lr={config.lr:.0e}, {tags}", ""],
    "highlight": [0, 5],
    "title": ["", "--A title, with -- words"],
    "style": ["dark"],
    "size": [(5.5, 1 / 0.3)],
    "dpi": [300],
    "full_res": [True],
    "format": ["svg"],
    "data": ["parquet"],
    "group_by_prefix": [True],
    "output": [Path("a b/c")],
}
ELSEWHERE = {"output", "all_metrics", "include_system"}  # not said again of one picture


def read(words: list[str]) -> PlotOptions:
    """The options that words on the command line say."""
    command = main_group.commands["generate-plots"]
    with command.make_context("generate-plots", ["me/demo", "r", *words]) as context:
        return plot_options(context.params)


@pytest.mark.parametrize("name", [one.name for one in fields(PlotOptions)])
def test_every_option_survives_its_flag(name: str) -> None:
    (flags,) = {one.metadata["flags"] for one in fields(PlotOptions) if one.name == name}
    for value in VALUES[name]:
        needs = {"smoothing": "gaussian"} if name == "smoothing_param" else {}
        options = PlotOptions(**{name: value}, **needs)
        if name in ELSEWHERE:
            assert options.flags() == []
            assert getattr(read([flags[0].words, *([str(value)] if flags[0].metavar else [])]), name) == value
        else:
            assert read(options.flags()) == options and read(options.flags()).flags() == options.flags() != []
    assert all(flag.section in SECTIONS and flag.help.endswith((".", ",", "...")) for flag in flags)


def test_nothing_said_is_the_default() -> None:
    assert read([]) == PlotOptions() and PlotOptions().flags() == []


def test_the_help_is_in_sections_and_begins_with_examples() -> None:
    command = main_group.commands["generate-plots"]
    text = command.get_help(click.Context(command))
    places = [text.index(f"\n{section}:") for section in SECTIONS]
    assert places == sorted(places) and text.index("Examples:") < places[0]
    for _, flag in flags_of(PlotOptions):
        assert f"\n  {flag.words}" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dpi", "many"], "--dpi: 'many' is not a whole number"),
        (["--ema-weight", "x"], "--ema-weight: 'x' is not a number"),
        (["--logy", "--linear"], "--logy and --linear contradict each other"),
        (["--grid", "--kind", "heatmap"], "--grid cannot be had with --kind heatmap"),
        (["--grid", "--facet", "group"], "--grid cannot be had with --facet"),
        (["--kind", "pie"], "--kind must be one of line, heatmap, profile: pie"),
    ],
)
def test_what_cannot_be_read_names_its_flag(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(words)


def test_two_writers_of_one_file_of_numbers_both_leave_it_whole(tmp_path: Path, monkeypatch: Any) -> None:
    run = PlotRun("e", "p", "r", "r")
    path, plain, begun = tmp_path / "loss.csv", data._batches, threading.Event()

    def slow(*args: Any) -> Any:
        for batch in plain(*args):
            yield batch
            if batch.num_rows > 3:  # the longer one is still at it when the other is done
                begun.set()
                short.join()

    def write(count: int) -> None:
        series = Series("r", np.arange(count), np.full(count, float(count)), run_id="r")
        drawn = [Drawn(Panel(series=[series], title="loss", metric="loss"), (run,), (count,), (0,), ())]
        data.write(path, drawn, PlotOptions(data="csv"))

    monkeypatch.setattr(data, "_batches", slow)
    short = threading.Thread(target=lambda: (begun.wait(10), write(3)))
    long = threading.Thread(target=write, args=(50,))
    short.start()
    long.start()
    long.join()
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [float(row["value"]) for row in rows] == [50.0] * 50
    assert [one.name for one in tmp_path.iterdir()] == ["loss.csv"]


def test_the_numbers_of_another_metric_are_not_written_over() -> None:
    taken = {"a_b.svg": "a/b", "a_b.csv": "a/b"}
    assert str(plot_files(["a_b"], taken=taken)["a_b"]) == "a_b.png"
    assert str(plot_files(["a_b"], taken=taken, beside=".csv")["a_b"]).startswith("a_b-")
    assert str(plot_files(["a/b"], taken=taken, beside=".csv")["a/b"]) == "a_b.png"
