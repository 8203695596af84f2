"""`wandbsync demo`: train a few small networks with the real wandb SDK offline, then show what wandbsync makes of them.

One of the four runs is killed half-way, as it happens. No account and no network are needed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .errors import UsageError, WandbsyncError

MARK = ".wandbsync-demo"
STEPS = 1000
RUNS = [("slow", 0.01, STEPS), ("steady", 0.1, STEPS), ("eager", 1.0, STEPS), ("unlucky", 0.3, 600)]  # last: killed at


def run(folder: Path, *, call: Callable[[list[str]], object], say: Callable[[str], None]) -> None:
    """Train, sync, list, query and plot below `folder`, which must be new, empty, or an earlier demo's.

    `call` carries out a wandbsync command, given its words.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise UsageError(f"{folder} is in use", hint="name an empty folder with --output")
    for made in ("wandb", "cache", "plots"):
        shutil.rmtree(folder / made, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    say(f"training {len(RUNS)} small networks, logged with wandb in offline mode; one will be killed ...")
    _train_all(folder)

    def show(*words: str) -> None:
        say("")
        say("$ wandbsync " + " ".join(f'"{word}"' if "'" in word else shlex.quote(word) for word in words))
        call(["--cache-dir", str(folder / "cache"), *words])

    ids = ",".join(f"demo-{name}" for name, _, _ in RUNS)
    best = (
        "SELECT run_id, config->>'lr' AS lr, min(value) AS best, arg_min(step, value) AS at_step FROM history "
        "JOIN runs USING (entity, project, run_id) WHERE key = 'val/loss' GROUP BY ALL ORDER BY best"
    )
    show("sync", "--local", str(folder))
    show("list-runs", "demo")
    show("list-metrics", "demo", "demo-steady")
    show("sql", best)
    show("generate-plots", "demo", ids, "--metrics", "train/loss,val/acc", "--output", str(folder / "plots"))
    say("")
    say(f"The pictures are in {folder / 'plots'}. Ask for more with --cache-dir {folder / 'cache'}.")


def _train_all(folder: Path) -> None:
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WANDB_")},
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder.resolve()),
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "training.log").open("w") as log:
        jobs = []
        for name, lr, steps in RUNS:
            command = [sys.executable, "-m", "wandbsync.demo", name, str(lr), str(steps)]
            jobs.append((name, steps, subprocess.Popen(command, env=env, stdout=log, stderr=log)))
        for name, steps, job in jobs:
            if job.wait() != (0 if steps == STEPS else -signal.SIGKILL):
                raise WandbsyncError(
                    f"the demo run {name} ended with {job.returncode}", hint=f"{folder / 'training.log'} tells more"
                )
    _wait_for_logs(folder)


def _wait_for_logs(folder: Path, seconds: float = 20.0) -> None:
    """Until nobody writes to them: a second process of the SDK outlives the killed job, and has its log in memory."""
    from .sources import local

    deadline = time.monotonic() + seconds
    logs = {(status.st_dev, status.st_ino) for status in map(Path.stat, folder.glob("wandb/*run-*/*.wandb"))}
    while logs & (local.writers() or set()) and time.monotonic() < deadline:
        time.sleep(0.05)


def train(name: str, lr: float, steps: int) -> None:
    """Fit a ring of points with one hidden layer; log as people do. Killed at `steps` if that is before the end."""
    import numpy as np
    import wandb

    rng = np.random.default_rng(0)
    points = rng.normal(size=(600, 2))
    inside = (np.hypot(points[:, 0], points[:, 1]) < 1.1).astype(float)
    train_x, train_y, val_x, val_y = points[:400], inside[:400], points[400:], inside[400:]
    config = {"lr": lr, "model": {"hidden": 16, "activation": "tanh"}, "batch_size": 40}
    with wandb.init(
        project="demo", id=f"demo-{name}", name=name, config=config, tags=["demo"], notes="a ring of points"
    ) as log:
        log.define_metric("val/acc", summary="max")
        w1, b1 = rng.normal(size=(2, 16)), np.zeros(16)
        w2, b2 = rng.normal(size=16) / 4, 0.0

        def forward(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            hidden = np.tanh(x @ w1 + b1)
            return hidden, 1 / (1 + np.exp(-(hidden @ w2 + b2)))

        def loss(p: np.ndarray, y: np.ndarray) -> float:
            return float(-np.mean(y * np.log(p + 1e-12) + (1 - y) * np.log(1 - p + 1e-12)))

        for step in range(STEPS):
            if step == steps:
                os.kill(os.getpid(), signal.SIGKILL)
            batch = rng.choice(len(train_x), 40, replace=False)
            x, y = train_x[batch], train_y[batch]
            hidden, p = forward(x)
            error = (p - y) / len(y)
            back = np.outer(error, w2) * (1 - hidden**2)
            row: dict[str, object] = {"train/loss": loss(p, y), "train/acc": float(np.mean((p > 0.5) == y)), "lr": lr}
            w2, b2 = w2 - lr * hidden.T @ error, b2 - lr * error.sum()
            w1, b1 = w1 - lr * x.T @ back, b1 - lr * back.sum(axis=0)
            if step % 10 == 0:
                _, p = forward(val_x)
                row |= {"val/loss": loss(p, val_y), "val/acc": float(np.mean((p > 0.5) == val_y))}
                print(f"step {step}: loss {row['val/loss']:.4f}")
            if step % 200 == 199:
                side = np.linspace(-3, 3, 64)
                grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
                row["boundary"] = wandb.Image((forward(grid)[1].reshape(64, 64) * 255).astype(np.uint8))
            log.log(row)


if __name__ == "__main__":
    train(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
