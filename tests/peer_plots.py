"""The algorithm that wandbsync's plots replace, as a script: python peer_plots.py FOLDER OUT. A peer for `make bench`.

A pandas frame, a smoothing loop in Python, pyplot and a tight bounding box, as wandb-plot's generate_plots draws; what
it draws is read from FOLDER/*.npy, and W&B's SDK is not imported.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

mpl.use("Agg")
import matplotlib.pyplot as plt


def time_weighted_ema(x: list[float], y: list[float], weight: float, viewport: float) -> list[float]:
    span = (x[-1] - x[0]) or 1.0
    last = debias = 0.0
    previous = x[0]
    out = []
    for place, value in zip(x, y):  # noqa: B905
        decay = weight ** ((place - previous) / span * viewport)
        previous = place
        last, debias = last * decay + value, debias * decay + 1.0
        out.append(last / debias)
    return out


def draw(frame: pd.DataFrame, metric: str, path: Path) -> None:
    plt.figure(figsize=(10, 6))
    data = frame[["_step", metric]].dropna()
    smooth = time_weighted_ema(data["_step"].tolist(), data[metric].tolist(), 0.99, 1000.0)
    (line,) = plt.plot(data["_step"], data[metric], alpha=0.3, linewidth=0.8)
    plt.plot(data["_step"], smooth, color=line.get_color(), linewidth=1.5)
    plt.xlabel("Step")
    plt.ylabel(metric)
    plt.title(metric)
    plt.grid(True, alpha=0.3)
    plt.tight_layout()
    plt.savefig(path, dpi=150, bbox_inches="tight")
    plt.close()


def main() -> None:
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    columns = {path.stem: np.load(path) for path in sorted(folder.glob("*.npy"))}
    frame = pd.DataFrame({"_step": np.arange(len(next(iter(columns.values())))), **columns})
    for metric in columns:
        draw(frame, metric, out / f"{metric}.png")


if __name__ == "__main__":
    main()
