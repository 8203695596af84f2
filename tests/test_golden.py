"""A few whole pictures, as somebody has looked at them: python tests/test_golden.py draws them anew, to be seen."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from wandbsync.plot import style
from wandbsync.plot.figure import Panel, Series, draw_grid, draw_panel, written
from wandbsync.plot.groups import combine
from wandbsync.plot.stats.centred import centred_mean

GOLDEN = Path(__file__).with_name("golden")


def curve(seed: int, n: int, *, label: str = "run", spikes: int = 0, high: float = 10.0) -> Series:
    rng = np.random.default_rng(seed)
    x = np.arange(n)
    y = (high * np.exp(-x / n * 5) + 0.4) * np.exp(np.abs(rng.normal(0, 0.2, n)))
    y[rng.integers(0, n, spikes)] *= 6.0
    at, line = centred_mean(x, y)
    return Series(label, x, y, line, smooth_x=at)


def million() -> bytes:
    look = replace(style.LOOKS["screen"], dpi=75)
    panel = Panel(series=[curve(1, 1_000_000, spikes=20)], title="train/loss", subtitle="a million points")
    return written(draw_panel(panel, look=look), "png", look)


def groups() -> bytes:
    look = replace(style.LOOKS["paper"], dpi=110)
    rng = np.random.default_rng(2)
    x = np.arange(0, 2_000_000, 4_000)
    series = []
    for slot, (name, top) in enumerate([("PPO", 800.0), ("PPO + RND", 1800.0), ("DreamerV3", 2500.0)]):
        runs = [
            (x, top * rng.normal(1, 0.15) * (1 - np.exp(-x / 6e5)) + rng.normal(0, 9, 500).cumsum()) for _ in "12345"
        ]
        group = combine(runs, line="mean", bands=["std", "minmax"])
        series.append(Series(f"{name} (n=5)", group.x, group.line, slot=slot, bands=group.bands))
    panel = Panel(series=series, title="episodic return", subtitle="± std (dark), min–max (light)", key="above")
    return written(draw_panel(panel, look=look), "png", look)


def dark_grid() -> bytes:
    look = replace(style.LOOKS["dark"], dpi=60)
    panels = [
        Panel(series=[curve(i, 3000, label=f"lr={i}", high=float(i)) for i in range(1, 7)], title=title)
        for title in ("train/loss", "val/loss", "grad_norm", "lr")
    ]
    return written(draw_grid(panels, title="6 runs", subtitle="centred mean", look=look)[0], "png", look)


PICTURES = {"million": million, "groups": groups, "dark_grid": dark_grid}


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=np.float64)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_look_as_they_did(name):
    drawn, known = pixels(PICTURES[name]()), pixels((GOLDEN / f"{name}.png").read_bytes())
    assert drawn.shape == known.shape
    apart = np.abs(drawn - known).max(axis=2)
    # Another version of matplotlib may set letters a little differently, and nothing else.
    assert apart.mean() < (2.0 if matplotlib.__version_info__ >= (3, 9) else 3.0) and (apart > 64).mean() < 0.015


if __name__ == "__main__":
    for name, make in PICTURES.items():
        (GOLDEN / f"{name}.png").write_bytes(make())
