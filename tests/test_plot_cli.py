"""Pictures of real runs, asked for as people ask: axes, groups, labels, looks, files beside them; never drawn twice."""

from __future__ import annotations

import csv
import html
import io
import json
import math
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from shell import Shell

from wandbsync import query
from wandbsync.cache import Cache, schema
from wandbsync.model import RunRef
from wandbsync.plot import sheet
from wandbsync.terminal import printable

PROJECT = "local/demo"


@pytest.fixture(scope="module")
def shell(sdk_runs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Shell:
    shell = Shell(tmp_path_factory.mktemp("plots"))
    shell("sync", "--local", str(sdk_runs("charts")))
    return shell


def plot(shell: Shell, *words: str, runs: str = "c0,c2,c4", metrics: str = "loss", output: str = "out") -> list[dict]:
    return shell.json("generate-plots", PROJECT, runs, "--metrics", metrics, "--output", output, "--offline", *words)


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def image(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


# -- the x axis


@pytest.fixture(scope="module")
def cache(shell: Shell) -> Cache:
    return Cache(shell.cache)


def ref(run: str) -> RunRef:
    return RunRef("local", "demo", run)


def test_what_define_metric_says_is_the_axis(cache: Cache) -> None:
    every = [ref(f"c{i}") for i in range(6)]
    assert query.axis_of(cache, every, "val/loss") == "epoch"
    assert query.axis_of(cache, every, "loss") == "step"
    assert query.axis_of(cache, every, "val/loss", "step") == "step"
    assert query.axis_of(cache, every, "system.proc.cpu.threads") == "relative"
    assert query.axis_of(cache, every, "system.proc.cpu.threads", "step") == "sample"
    x, y, without = query.points(cache, ref("c0"), "val/loss", "epoch")
    assert (x.tolist(), without) == ([0, 1, 2, 3, 4, 5, 5], 0) and y[-1] == 0.5
    x, y, _ = query.points(cache, ref("c0"), "loss", "relative")
    assert len(x) == len(y) == 60 and (x[1:] >= x[:-1]).all() and 0 <= x[0] < x[-1] < 300
    x, _, _ = query.points(cache, ref("c0"), "loss", "time")
    assert abs(x[0] - query.points(cache, ref("c0"), "_timestamp", "step")[1][0]) < 1e-9
    x, y, without = query.points(cache, ref("c0"), "loss", "epoch")
    assert (len(x), without) == (6, 54) and y[1] == pytest.approx(math.exp(-1.0))
    x, y, _ = query.points(cache, ref("c0"), "system.proc.cpu.threads", "relative")
    assert len(x) == len(y) >= 1 and x[0] >= 0


def test_axes_in_a_figure(shell: Shell) -> None:
    (one,) = plot(shell, "--data", "csv", metrics="val/loss", output="axis")
    assert one["axis"] == "epoch" and {row["x"] for row in rows(shell.folder / one["data"])} == set("012345")
    (one,) = plot(shell, "--x", "epoch", "--data", "csv", runs="c0", output="axis")
    assert len(rows(shell.folder / one["data"])) == 6
    (one,) = plot(shell, "--x", "relative", "--x-unit", "min", "--data", "csv", output="axis")
    assert one["axis"] == "relative" and all(float(row["x"]) < 5 for row in rows(shell.folder / one["data"]))
    assert plot(shell, "--x", "time", "--logy", "--xlim", ",", "--ylim", "0.01,", output="axis")[0]["axis"] == "time"
    (one,) = plot(shell, "--x", "back", runs="c0", metrics="only here", output="axis")
    assert one["path"] and one["points"] == [2]
    error = shell.error("generate-plots", PROJECT, "c0", "--metrics", "loss", "--x", "epohc", "--offline", code=2)
    assert "no metric epohc for the x axis (did you mean epoch" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ylim", "0,1", "--logy"], "the y axis of loss is logarithmic and cannot begin at 0 (try --linear)"),
        (["--xlim", "1000,"], "the x axis would go from 1000 to"),
        (["--xlim", "5,1"], "--xlim must go upwards: 5,1"),
        (["--xlim", "a,b"], "--xlim: 'a,b' is not two numbers (write it like 0,100 or 0,)"),
        (["--xlim", "1"], "is not two numbers"),
        (["--size", "big"], "--size: 'big' is no size in inches (write it like 8x4.8)"),
        (["--size", "1x99"], "--size must be between 1.5 and 60 inches each way: 1x99"),
        (["--dpi", "1"], "--dpi must be between 30 and 1200: 1"),
        (["--format", "gif"], "--format must be one of png, svg, pdf: gif"),
        (["--style", "loud"], "--style must be one of screen, paper, dark: loud"),
        (
            ["--smoothing", "kalman"],
            "must be one of auto, none, time-weighted, ema, gaussian, running: kalman",
        ),
        (["--smoothing", "ema", "--smoothing-param", "1"], "the parameter of ema must be from 0 and below 1: 1"),
        (["--smoothing-param", "1"], "--smoothing-param belongs to --smoothing"),
        (
            ["--line", "mode", "--band", "std,range"],
            "--line must be one of mean, median, iqm, min, max: mode; --band must be",
        ),
        (["--logy", "--linear"], "--logy and --linear contradict each other"),
        (["--label", "{config.rl}"], "no run has config.rl (did you mean config.lr"),
        (["--label", "{name:.2f}"], "cannot be written as '.2f' in a label"),
        (["--group-by", "config"], "no run has config (did you mean config."),
        (["--group-by", "config.opt.nme"], "no run has config.opt.nme (did you mean config.opt.name"),
        (["--runs-where", "config.lr <"], "--runs-where: 'config.lr <' is no condition"),
        (["--runs-where", "__import__('os')"], "is not understood"),
        (["--runs-where", "config.lr > 7"], "none of 1 runs has config.lr > 7"),
        (["--data", "xlsx"], "--data must be one of csv, parquet: xlsx"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(shell: Shell, words: list[str], said: str) -> None:
    error = shell.error(
        "generate-plots", PROJECT, "c0", "--metrics", "loss", "--output", "no", "--offline", *words,
        code=1 if "axis" in said else 2,
    )  # fmt: skip
    assert said in error
    assert not (shell.folder / "no").exists()


# -- which runs


def test_runs_are_named_as_people_name_them(shell: Shell) -> None:
    def chosen(*words: str, code: int = 0) -> list[str]:
        done = shell.json("generate-plots", *words, "--metrics", "loss", "--output", "named", "--offline")
        runs: list[str] = done[0]["runs"]
        return runs

    assert chosen(PROJECT, "c0", "c2") == chosen(PROJECT, "c0,c2") == ["c0", "c2"]
    assert chosen(f"{PROJECT}/c1") == ["c1"]
    assert chosen(f"{PROJECT}/c1", f"{PROJECT}/c0", "c1") == ["c1", "c0"]
    assert chosen(PROJECT, "c[0-2]", "c1") == ["c0", "c1", "c2"]
    assert chosen(PROJECT, "--all") == [f"c{i}" for i in range(6)]
    assert chosen(PROJECT, "c*", "--runs-where", "config.lr < 0.05 and config.seed == 0") == ["c2", "c4"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x*"], "none of 6 runs in local/demo fits x*"),
        (["c0", "c00"], "no run c00 in local/demo (did you mean c0"),
        (["c0", "--all"], "--all draws all runs, so name none of them"),
        ([], "no run to plot (name some, choose them with --runs-where, or draw --all)"),
    ],
)
def test_runs_that_are_not_there_are_said(shell: Shell, words: list[str], said: str) -> None:
    assert said in shell.error("generate-plots", PROJECT, *words, "--metrics", "loss", "--offline", code=2)


# -- comparing runs


def test_runs_are_chosen_by_a_condition(shell: Shell) -> None:
    def chosen(where: str, runs: str = "") -> set[str]:
        words = ["generate-plots", PROJECT, *([runs] if runs else []), "--metrics", "loss", "--output", "chosen"]
        return set(shell.json(*words, "--offline", "--runs-where", where)[0]["runs"])

    assert chosen("config.lr < 0.05 and config.seed == 0") == {"c2", "c4"}
    assert chosen("'best' in tags") == {"c2"}
    assert chosen("not ('best' in tags) and state == 'finished'") == {"c0", "c1", "c3", "c4", "c5"}
    assert chosen("group == 'wide' or config.opt.name == 'sgd'") == {"c0", "c1"}
    assert chosen("config['lr'] in [0.1, 0.001]", "c0,c1,c2") == {"c0", "c1"}
    assert chosen("loss < 0.1") == {"c0", "c1"}, "a summary value"
    assert chosen("0.005 < config.lr < 0.05") == {"c2", "c3"}
    assert chosen("config.lr > 0 and notes == None") == {f"c{i}" for i in range(6)}
    assert shell("generate-plots", PROJECT, "--metrics", "loss", "--offline", code=2).stderr.startswith("error: no run")


def test_groups_have_a_line_and_bands(shell: Shell) -> None:
    words = ["--group-by", "config.lr", "--band", "minmax,std", "--no-ema", "--data", "parquet"]
    (one,) = plot(shell, *words, runs="c0,c1,c2,c3,c4", output="groups")
    table = pq.read_table(shell.folder / one["data"])
    assert table.column_names == [
        *("metric", "group", "x", "value", "n"),
        *("minmax_low", "minmax_high", "std_low", "std_high"),
    ]
    found = {(row["group"], row["x"]): row for row in table.to_pylist()}
    assert {group for group, _ in found} == {"lr=0.1", "lr=0.01", "lr=0.001"}
    row = found["lr=0.1", 30.0]
    assert row["n"] == 2
    middle = math.exp(-3.0) + 0.005
    assert row["value"] == pytest.approx(middle) and row["minmax_low"] == pytest.approx(middle - 0.005)
    assert row["std_high"] == pytest.approx(middle + 0.005), "of the population, as W&B has it"
    drawn = json.loads((shell.folder / "groups/metadata.json").read_text())["plots"]["loss.png"]
    assert drawn["groups"] == ["lr=0.1", "lr=0.1", "lr=0.01", "lr=0.01", "lr=0.001"]
    assert len(set(drawn["colours"].values())) == 3


def test_numbers_that_look_alike_are_groups_of_their_own() -> None:
    lr = [0.1234567, 0.1234568, 0.1, 0.30000000000000004, 1, 1.0, None]
    runs = [{"config": {"lr": one}} for one in lr]
    assert query.group_names(runs, ["config.lr"]) == [
        *("lr=0.1234567", "lr=0.1234568", "lr=0.1", "lr=0.3", "lr=1", "lr=1", "lr=–"),
    ]
    runs = [{"config": {"betas": [0.9, beta]}} for beta in (0.9990001, 0.9990002)]
    assert query.group_names(runs, ["config.betas"]) == ["0.9,0.9990001", "0.9,0.9990002"]


def test_a_list_of_no_run_is_said(shell: Shell) -> None:
    error = shell.error("generate-plots", PROJECT, " ,", "--metrics", "loss", "--offline", code=2)
    assert error.startswith("error: no run to plot (name some")


def test_of_each_missing_metric_near_ones_are_named(shell: Shell) -> None:
    error = shell.error("generate-plots", PROJECT, "c0", "--metrics", "lss,vl/loss", "--offline", code=2)
    assert "lss: did you mean loss" in error and "vl/loss: did you mean val/loss" in error


def test_labels(shell: Shell) -> None:
    (one,) = plot(shell, "--label", "{config.lr:.0e} {tags} {config.opt.name} {loss:.1f} {notes}", "--data", "csv")
    labels = {row["label"] for row in rows(shell.folder / one["data"])}
    assert labels == {"1e-01 new adam 0.0 –", "1e-02 best,new adam 0.6 –", "1e-03 new adam 1.0 –"}


def test_a_run_has_one_colour_in_all_its_plots(shell: Shell) -> None:
    def colours(folder: str) -> dict[str, int]:
        plots = json.loads((shell.folder / folder / "metadata.json").read_text())["plots"]
        return plots["loss.png"]["colours"]

    plot(shell, runs="c5,c3", output="first")
    plot(shell, runs="c3,c4", output="second")
    plot(shell, runs="c4", output="third")
    plot(shell, runs="c5,c4,c3", output="fourth")
    every = colours("fourth")
    for folder in ("first", "second", "third"):
        assert colours(folder).items() <= every.items()
    assert len(set(every.values())) == 3


# -- files


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF-1.4")])
def test_formats(shell: Shell, form: str, start: bytes) -> None:
    words = ["--format", form, "--style", "paper", "--label", "потеря {config.lr}"]
    (one,) = plot(shell, *words, output=f"as-{form}")
    content = (shell.folder / one["path"]).read_bytes()
    assert one["path"].endswith(f"loss.{form}") and content.startswith(start)
    for moment in (b"CreationDate", b"<dc:date>", b"tIME"):
        assert moment not in content
    again = plot(shell, *words, output=f"again-{form}")[0]
    assert (shell.folder / again["path"]).read_bytes() == content
    if form == "svg":
        assert "потеря 0.1" in content.decode(), "text stays text"
    if form == "png":
        found = image(shell.folder / one["path"])
        assert found.size == (1650, 990) and round(found.info["dpi"][0]) == 300


def test_sizes(shell: Shell) -> None:
    (one,) = plot(shell, "--size", "3.5x2.5", "--dpi", "200", "--style", "dark", "--title", "", output="small")
    found = image(shell.folder / one["path"]).convert("RGB")
    assert found.size == (700, 500) and sum(found.getpixel((1, 1))) < 100
    (one,) = plot(shell, "--size", "3.5x2.5", runs="c0,c1,c2,c3,c4,c5", output="small")
    assert image(shell.folder / one["path"]).size == (525, 375)


def test_a_grid(shell: Shell) -> None:
    (one,) = plot(shell, "--grid", metrics="loss,acc,val/loss,ragged", output="grid")
    assert one["path"] == "grid/grid.png" and one["metrics"] == ["loss", "acc", "val/loss", "ragged"]
    assert one["points"] == [60 + 60 + 7 + 60, 60 + 60 + 6 + 60, 60 + 60 + 6 + 60] and one["axis"] is None
    assert one["non_finite"] == [9, 9, 9]
    width, height = image(shell.folder / one["path"]).size
    assert (width, height) == (1200, round((2 * 2.7 + 0.75) * 150))
    (one,) = plot(shell, "--grid", metrics="loss,only here", output="grid")
    assert one["path"] and one["skipped"] == [f"only here of local/demo/{run}: not logged" for run in ("c2", "c4")]


def test_the_command_in_the_metadata_draws_the_same_again(shell: Shell) -> None:
    words = [
        *("--smoothing", "gaussian", "--smoothing-param", "20", "--label", "a {config.lr}", "--xlim", "0,", "--logy"),
        *("--style", "dark", "--size", "5x3.5", "--y-unit", "nats", "--x", "relative", "--clip-outliers"),
    ]
    (one,) = plot(shell, *words, output="redo")
    command = json.loads((shell.folder / "redo/metadata.json").read_text())["plots"]["loss.png"]["command"]
    for kept in (shell.cache / "derived" / "plots").iterdir():
        if kept.name != "colours.json":
            kept.unlink()
    assert command[0] == "wandbsync"
    shell(*command[1:], "--output", "redone", "--offline")
    assert (shell.folder / "redone/loss.png").read_bytes() == (shell.folder / one["path"]).read_bytes()


# -- never twice


def test_the_same_picture_is_not_drawn_twice(fresh_cache: Shell) -> None:
    shell = fresh_cache
    (first,) = plot(shell, "--data", "csv")
    path = shell.folder / first["path"]
    content, moment = path.read_bytes(), path.stat().st_mtime_ns
    metadata = (shell.folder / "out/metadata.json").read_bytes()
    (again,) = plot(shell, "--data", "csv")
    assert (first["cached"], again["cached"]) == (False, True)
    assert again | {"cached": False} == first
    assert path.stat().st_mtime_ns == moment and (shell.folder / "out/metadata.json").read_bytes() == metadata
    (shell.folder / first["data"]).write_text("changed by somebody")
    assert plot(shell, "--data", "csv")[0]["cached"] is False
    assert len(rows(shell.folder / first["data"])) == 180
    (other,) = plot(shell, output="elsewhere")
    assert other["cached"] is False  # it has no numbers beside it
    assert plot(shell, output="third")[0]["cached"] is True
    assert (shell.folder / "third/loss.png").read_bytes() == content
    path.write_bytes(b"painted over")
    plot(shell)
    assert path.read_bytes() == content, "a copy, not a link"
    for words in (["--ema-weight", "0.9"], ["--style", "dark"], ["--label", "x {config.lr}"], ["--dpi", "100"]):
        assert plot(shell, *words)[0]["cached"] is False
    assert plot(shell, runs="c0,c2")[0]["cached"] is False
    assert plot(shell, runs="c2,c0,c4")[0]["cached"] is False, "another order is another picture"


def test_a_picture_is_drawn_anew_when_its_data_move(fresh_cache: Shell) -> None:
    shell = fresh_cache
    plot(shell, runs="c0")
    assert plot(shell, runs="c0")[0]["cached"] is True
    with sqlite3.connect(shell.cache / "catalog.sqlite") as con:
        schema.register(con)
        con.execute("UPDATE metrics SET count = count + 1 WHERE key = 'acc'")
    assert plot(shell, runs="c0")[0]["cached"] is True, "another metric"
    with sqlite3.connect(shell.cache / "catalog.sqlite") as con:
        schema.register(con)
        con.execute("UPDATE runs SET display_name = 'renamed' WHERE run_id = 'c0'")
    assert plot(shell, runs="c0")[0]["cached"] is False
    with sqlite3.connect(shell.cache / "catalog.sqlite") as con:
        schema.register(con)
        con.execute("UPDATE metrics SET last_value = 7, count = count + 1 WHERE key = 'loss'")
    assert plot(shell, runs="c0")[0]["cached"] is False


def test_damaged_and_read_only_memory_is_no_obstacle(fresh_cache: Shell) -> None:
    shell = fresh_cache
    content = (shell.folder / plot(shell)[0]["path"]).read_bytes()
    kept = sorted((shell.cache / "derived" / "plots").glob("*.png"))
    assert len(kept) == 1
    kept[0].write_bytes(content[:-9])
    assert plot(shell)[0]["cached"] is False and (shell.folder / "out/loss.png").read_bytes() == content
    for path in (shell.cache / "derived" / "plots").glob("*.json"):
        path.write_text("{")
    assert plot(shell)[0]["cached"] is False and (shell.folder / "out/loss.png").read_bytes() == content
    shutil.rmtree(shell.cache / "derived" / "plots")
    (shell.cache / "derived" / "plots").write_text("in the way")
    assert plot(shell)[0]["cached"] is False and (shell.folder / "out/loss.png").read_bytes() == content


def test_a_repeat_needs_nothing_heavy(fresh_cache: Shell) -> None:
    shell = fresh_cache
    plot(shell)
    code = (
        "import sys, os\nfrom wandbsync.cli import main\nsys.argv = ['wandbsync', *sys.argv[1:]]\n"
        "os._exit = lambda code: print('LOADED', *{name.split('.')[0] for name in sys.modules})\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
    )
    words = ["generate-plots", PROJECT, "c0,c2,c4", "--metrics", "loss", "--output", "out", "--offline"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=shell.folder,
        env=shell.env,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.rsplit("LOADED", 1)[1].split())
    assert "sqlite3" in loaded and not loaded & {"numpy", "matplotlib", "pyarrow", "duckdb", "logging", "wandb"}


@pytest.fixture
def fresh_cache(shell: Shell, tmp_path: Path) -> Shell:
    """The same runs in a cache of its own, in which nothing was drawn yet."""
    fresh = Shell(tmp_path)
    shutil.copytree(shell.cache, fresh.cache, ignore=shutil.ignore_patterns("plots"))
    return fresh


# -- the contact sheet


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def test_a_contact_sheet_of_all_metrics(shell: Shell) -> None:
    words = ["generate-plots", PROJECT, "c0,c1", "--all-metrics", "--output", "sheet", "--offline"]
    results = shell.json(*words)
    page = (shell.folder / "sheet/index.html").read_text()
    shown = re.findall(r'<img src="([^"]+)"', page)
    assert len(shown) == len([result for result in results if result["path"]]) == 7
    assert all((shell.folder / "sheet" / name.replace("%20", " ")).exists() for name in shown)
    moment = (shell.folder / "sheet/index.html").stat().st_mtime_ns
    shell(*words)
    assert (shell.folder / "sheet/index.html").stat().st_mtime_ns == moment


def browsed(page: Path, profile: Path, *more: str, where: str = "") -> str:
    """A page as Chromium has it once its script has run."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
    words = [str(BROWSER), *flags, "--dump-dom", "--virtual-time-budget=4000", *more]
    done = subprocess.run([*words, page.as_uri() + where], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_the_contact_sheet_in_a_browser(shell: Shell, tmp_path: Path) -> None:
    shell("generate-plots", PROJECT, "c0,c1", "--all-metrics", "--output", "browsed", "--offline")
    page = shell.folder / "browsed/index.html"
    whole, narrow = browsed(page, tmp_path / "profile"), browsed(page, tmp_path / "profile", where="#LOSS%20val")
    assert "<output>7 metrics</output>" in whole and "hidden" not in re.sub(
        r"<style>.*?</style>|<script>.*", "", whole, flags=re.S
    )
    assert "<output>1 of 7 metrics</output>" in narrow
    shown = re.findall(r'<figure data-metric="([^"]+)"(?! hidden)>', narrow)
    assert shown == ["val/loss"]


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_no_name_does_anything_in_a_browser(tmp_path: Path) -> None:
    """Names that would run as a script are shown as letters; what a fault of ours let in, the page's policy stops."""
    attack = "document.title=`owned`"
    names = [
        f"<script>{attack}</script>", f'"><img src=x onerror="{attack}">', f"' autofocus onfocus='{attack}",
        f"</style><svg onload={attack}>", f"javascript:{attack}", "{title}", "a&b<c", "loss\u202eevil\x1b[2J",
    ]  # fmt: skip
    Image.new("RGB", (9, 9), (255, 0, 0)).save(tmp_path / "red.png")
    whole = sheet.page(names[0], names, dict.fromkeys(names, "red.png"), {name: name for name in names})
    hole = f"<script>{attack}</script><img src=x onerror={attack}><section>"
    (tmp_path / "index.html").write_text(whole.replace("<section>", hole, 1))
    dom = browsed(tmp_path / "index.html", tmp_path / "profile", f"--screenshot={tmp_path}/seen.png")
    title, shown = re.findall(r"<title>(.*?)</title>", dom, re.S), re.findall(r"<figcaption>(.*?)</figcaption>", dom)
    assert hole in whole.replace("<section>", hole, 1) and list(map(html.unescape, title)) == names[:1]
    assert sorted(map(html.unescape, shown)) == sorted(map(printable, names))
    assert f"<output>{len(names)} metrics</output>" in dom  # the page's own script did run
    colours = Image.open(tmp_path / "seen.png").convert("RGB").getcolors(1 << 20) or []
    assert any(red > 200 > 160 > green for _, (red, green, _) in colours)  # and its own pictures are seen
