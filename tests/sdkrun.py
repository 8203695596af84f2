"""Real runs of the real SDK, offline: python sdkrun.py SCENARIO FOLDER. What was logged goes to FOLDER/logged.json."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import wandb

FOLDER = Path(sys.argv[2])
LOGGED: dict[str, Any] = {}


def start(run_id: str, **options: Any) -> Any:
    settings = wandb.Settings(x_stats_sampling_interval=0.1, silent=True, console="wrap")
    if not hasattr(settings, "x_sync_dir_suffix"):  # this SDK names the folder by the second, and writes over it
        time.sleep(1)
    return wandb.init(project="demo", id=run_id, mode="offline", dir=FOLDER, settings=settings, **options)


def note(name: str, value: Any) -> None:
    LOGGED[name] = value
    (FOLDER / "logged.json").write_text(json.dumps(LOGGED, default=repr))


def plain(value: Any) -> Any:
    return {key: plain(value[key]) for key in value.keys()} if hasattr(value, "keys") else value  # noqa: SIM118


def values() -> None:
    run = start(
        "values", name="all values", notes="two\nlines", tags=["nightly", "grün"], group="g1", job_type="train",
        config={"lr": 3e-4, "opt": {"name": "adam", "betas": [0.9, 0.999]}, "none": None, "big": 2**60, "a.b": 1},
    )  # fmt: skip
    rows = [
        {"float": 0.1, "int": 3, "bool": True, "none": None, "text": 'step ✓ "q"\n\\', "list": [1, 2.5, None, "x"]},
        {"float": math.nan, "int": 2**53 + 1, "bool": False, "nested": {"a": {"b": 0.5}, "c": "s"}, "a.b": 1.5},
        {"float": math.inf, "int": -(2**60), "ключ/ü": 1e-300, "nested": {"a": {"b": 1.5}}, "empty": {}},
        {"float": -math.inf, "int": 0, "mixed": "text", "long" * 50: 1e22},
        {"float": 5e-324, "int": -1, "mixed": 7, "text": ""},
    ]
    for row in rows:
        run.log(dict(row))
    run.config.update({"lr": 1e-3, "late": {"x": [1, 2]}}, allow_val_change=True)
    run.config.update({"opt": {"name": "sgd"}}, allow_val_change=True)
    run.log({"jump": 1}, step=100)
    run.log({"hist": wandb.Histogram(np_histogram=([1, 5, 2], [0.0, 1.0, 2.0, 3.0]))})
    run.log({"table": wandb.Table(columns=["a", "b"], data=[[1, "x"], [2, "y"]])})
    run.log({"html": wandb.Html("<b>x</b>")})
    run.tags = (*run.tags, "late")
    time.sleep(0.5)  # for a few samples of the machine
    note("rows", [[i, row] for i, row in enumerate(rows)])
    run.finish()


def charts() -> None:
    """Six runs to be compared: two of each learning rate, with a step metric of their own for what is validated."""
    for i, lr in enumerate([0.1, 0.1, 0.01, 0.01, 0.001, 0.001]):
        run = start(
            f"c{i}", name=f"lr {lr} seed {i % 2}", tags=["best", "new"] if i == 2 else ["new"],
            group="wide" if lr > 0.05 else "narrow", config={"lr": lr, "opt": {"name": "adam"}, "seed": i % 2},
        )  # fmt: skip
        run.define_metric("epoch")
        run.define_metric("val/*", step_metric="epoch")
        for step in range(60):
            row = {"loss": math.exp(-step * lr) + i / 100, "acc": step / 60, "ragged": step if step % 7 else math.nan}
            if step % 10 == 0:
                row |= {"epoch": step // 10, "val/loss": 1 / (1 + step * lr)}
            run.log(row)
        if i == 0:
            run.log({"val/loss": 0.5})  # the SDK adds the epoch to it
            run.log({"only here": 1.0, "back": 3})
            run.log({"only here": 2.0, "back": 2})
        run.finish()


def summary() -> None:
    run = start("summary")
    for name, how in {"lo": "min", "hi": "max", "avg": "mean", "end": "last", "begin": "first", "off": "none",
                      "all": "min,max,mean", "g/*": "max", "d.x": "min", "set": "max"}.items():  # fmt: skip
        run.define_metric(name, summary=how)
    run.define_metric("g/own")
    run.summary["before"] = -1
    run.summary["set"] = 50
    run.summary["gone"] = 1
    for i in range(20):
        value = math.sin(i)
        names = ("lo", "hi", "avg", "end", "begin", "off", "all", "g/a", "g/own", "set", "plain")
        nested = {"d": {"x": value, "y": i}, "d.x": i}
        run.log(dict.fromkeys(names, value) | nested | {"before": i, "after": i, "both": i})
        if i == 10:
            run.summary["both"] = 99  # logged again later
            del run.summary["gone"]
    run.summary["after"] = 0.5
    run.summary["by/hand"] = {"x": {"y": 2}}
    run.summary.update({"upd": {"deep": 3}})
    time.sleep(1.2)
    note("summary", {key: plain(run.summary[key]) for key in run.summary.keys() if not key.startswith("_")})  # noqa: SIM118
    run.finish()


def console() -> None:
    run = start("console")
    print("plain")
    for i in range(0, 101, 25):
        sys.stderr.write(f"\rTraining: {i:3d}%")
        sys.stderr.flush()
    sys.stderr.write("\n")
    print("\x1b[32mgreen\x1b[0m and \x1b(B\x1b[1;31mred\x1b[m")
    sys.stdout.write("open end")
    run.log({"x": 1})
    run.finish()


def resume() -> None:
    for part in range(3):
        run = start("again", resume="allow", config={"part": part, "only": {str(part): 1}})
        if part == 1:
            run.summary["hand"] = part
        for i in range(5):
            run.log({"part": part, "i": i})
        run.finish()


def rewind() -> None:
    run = start("back")
    for i in range(10):
        run.log({"x": i, "old": 1})
    run.summary["hand"] = "of the part that is void"
    run.finish()
    run = start("back", resume_from="back?_step=5")
    for i in range(4):
        run.log({"x": 100 + i})
    run.finish()


def fork() -> None:
    run = start("parent")
    for i in range(10):
        run.log({"x": i})
    run.finish()
    run = start("child", fork_from="parent?_step=5")
    for i in range(4):
        run.log({"x": 100 + i})
    run.finish()


def failed() -> None:
    run = start("failed")
    run.log({"x": 1})
    raise RuntimeError("CUDA out of memory, not really")


def killed() -> None:
    run = start("killed")
    for i in range(2000):
        run.log({"x": i, "pad": "p" * 50})
    time.sleep(1)
    os.killpg(0, signal.SIGKILL)


def live(run_id: str = "live") -> None:
    """Writes until FOLDER/stop is there."""
    run = start(run_id)
    i = 0
    while not (FOLDER / "stop").exists():
        run.log({"x": i, "text": f"row {i}", "nested": {"a": i / 3}})
        print(f"line {i}")
        sys.stderr.write(f"\rbar {i}" + ("\n" if i % 7 == 0 else ""))
        i += 1
        time.sleep(0.002)
    run.finish()
    note("rows", i)


def named() -> None:
    """The same, with the name of the folder."""
    live(FOLDER.name)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(ProcessLookupError):
        globals()[sys.argv[1]]()
