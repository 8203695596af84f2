"""The real SDK in a process of its own: `python sdk.py full` writes runs, `python sdk.py ask` reads with wandb.Api.

`ask` takes {"name": "expression"} as JSON from stdin, with `api` and what came before in reach, and prints the values.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import wandb
from logged import ROWS


def start(run_id: str, **options: Any) -> Any:
    settings = wandb.Settings(x_stats_sampling_interval=0.1, silent=True)
    return wandb.init(project="demo", id=run_id, settings=settings, **options)


def full() -> None:
    """A bit of everything."""
    names = {"name": "a bit of everything", "notes": "two\nlines", "tags": ["nightly", "grün"]}
    config = {"lr": 3e-4, "opt": {"name": "adam", "betas": [0.9, 0.999]}, "none": None, "a.b": 1}
    run = start("full", config=config, group="g", job_type="train", **names)
    run.define_metric("loss", summary="min")
    run.define_metric("val/*", step_metric="epoch")
    for row in ROWS:
        run.log(dict(row))
    run.log({"hist": wandb.Histogram([1, 2, 2, 3]), "html": wandb.Html("<b>x</b>")})
    run.log({"image": wandb.Image(_picture()), "table": wandb.Table(columns=["a"], data=[[1], [2]])})
    run.summary["by hand"] = {"x": 1}
    print("a line")
    print("a bad line", file=sys.stderr)
    time.sleep(0.5)  # for a few samples of the machine
    run.finish()


def _picture() -> str:
    """The smallest PNG, written by hand: no image library is needed."""
    data = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
                         "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082")  # fmt: skip
    path = Path("picture.png")
    path.write_bytes(data)
    return str(path)


def failed() -> None:
    start("failed").log({"x": 1})
    raise RuntimeError("out of memory, not really")


def branches() -> None:
    with start("again") as run:
        for i in range(10):
            run.log({"x": i})
    with start("again", resume="must") as run:
        for i in range(5):
            run.log({"x": 100 + i})
    with start("child", fork_from="again?_step=3") as run:
        run.log({"x": 1000})
    with start("again", resume_from="again?_step=11") as run:
        run.log({"x": 2000})


def offline() -> None:
    run = start("offline", mode="offline", tags=["late"], config={"lr": 1})
    for i in range(300):
        run.log({"x": i, "odd": float("nan")})
    print("an offline line")
    run.finish()
    command = [sys.executable, "-m", "wandb", "sync", str(Path(run.dir).parent)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def steady() -> None:
    """A run that is meant to arrive whole whatever the server does."""
    with start("steady") as run:
        for i in range(50):
            run.log({"x": i})


def ask() -> None:
    scope = {"api": wandb.Api(timeout=60), "asdict": dataclasses.asdict, "Path": Path}
    answers = {}
    for name, expression in json.load(sys.stdin).items():
        answers[name] = scope[name] = _value(expression, scope)
    json.dump(answers, sys.stdout, default=str)


def _value(expression: str, scope: dict[str, Any]) -> Any:
    try:
        return eval(expression, scope)
    except Exception as error:  # an answer too
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    globals()[sys.argv[1]]()
