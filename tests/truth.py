"""How much of the default line lies on its data, in every metric: `make truth`, python tests/truth.py [CACHE ...].

A piece of the line is on its data if it is within the lowest and highest of the values that were logged not more than a
hundredth of the run's range in x away, and the one before and the one after it; where these two are further apart than
that, of those that are so near to them. Without a CACHE two are made: of values as trainings have them, and one that
the SDK wrote.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from measured import Measured

from wandbsync import query
from wandbsync.cache import Cache, Share
from wandbsync.errors import WandbsyncError
from wandbsync.figures import shown
from wandbsync.model import HISTORY, Columns, RunRecord, RunRef
from wandbsync.plot import PlotOptions
from wandbsync.plot.curves import Curve, NothingToDraw, Points, curves_of
from wandbsync.plot.names import PlotRun
from wandbsync.plot.plan import Overlay
from wandbsync.plot.trace import Trace

Floats = npt.NDArray[np.float64]
ALLOWED = 0.01  # of a line may be beside its data
NEAR = 0.01  # of the range in x is near by
PLACES = 2_000  # where a line is looked at, besides its own points
COLUMNS = 7_200  # in which a picture shows it
N = 6_000


def kinds() -> dict[str, tuple[npt.NDArray[np.int64], Floats]]:
    """Values as trainings log them, by the name of a metric; x are steps."""
    rng = np.random.default_rng(13)
    step = np.arange(N)
    t, noise = step / N, rng.normal(size=N)
    once_in_a_while = np.where(rng.random(N) < 0.001, 60.0 * np.abs(noise), 0.0)
    sparse = np.unique(np.exp(rng.uniform(0.0, math.log(1e6), N // 2)).astype(np.int64))
    dense = np.concatenate((np.arange(N // 3), N // 3 + 200 * np.arange(1, N // 3)))
    apart = np.array([0, 1, 2, 5_000, 90_000, 90_001, 1_000_000])
    llm = 2.1 + 0.5 * np.exp(-4.0 * t) + 8.0 * np.exp(-step / 100) + 0.05 * noise * (1.0 + np.exp(-3.0 * t))
    evals = step[::250]
    of_steps: dict[str, Floats] = {
        "loss/llm": llm,
        "loss/llm_first_steps": llm + 400.0 * np.exp(-step / 3.0),
        "loss/log_scale": np.exp(-6.0 * t + 0.3 * noise),
        "loss/gan": np.abs(1.0 + 0.6 * np.sin(step / 300) + 0.5 * noise),
        "loss/epochs": 1.5 * np.exp(-(step // 600) / 3.0) - 0.3 * (step % 600) / 600 + 0.05 * noise,
        "loss/diverges": np.where(t < 0.97, np.exp(-3.0 * t), np.exp(np.minimum((t - 0.97) * 600, 14.0)))
        + 0.05 * noise,
        "loss/holes": np.where((step // 500) % 3 == 1, np.nan, np.exp(-3.0 * t) + 0.1 * noise),
        "loss/nan_here_and_there": np.where(rng.random(N) < 0.3, np.nan, np.exp(-3.0 * t) + 0.1 * noise),
        "lr/cosine": np.where(t < 0.05, t / 0.05, 0.5 * (1.0 + np.cos(math.pi * (t - 0.05) / 0.95))) * 3e-4,
        "lr/steps": 0.1 ** np.floor(3.0 * t),
        "lr/jitter": 1e-3 * np.exp(-2.0 * t) * (1.0 + 1e-7 * noise),
        "reward": 200.0 / (1.0 + np.exp(-15.0 * (t - 0.4))) + 60.0 * noise * (0.3 + t),
        "reward/collapse": np.where(t < 0.6, 300.0 * t, 20.0) + 40.0 * noise,
        "reward/sparse": (rng.random(N) < 0.01 + 0.1 * t).astype(np.float64),
        "reward/success": (rng.random(N) < 0.5 + 0.3 * t).astype(np.float64),
        "grad_norm/spikes": 1.0 + 0.1 * noise + once_in_a_while,
        "grad_norm/one_spike": np.where(step == N // 2, 1e12, 1.0 + 0.1 * noise),
        "grad_norm/heavy": np.exp(2.0 * noise),
        "grad_norm/cauchy": rng.standard_cauchy(N),
        "steps/noisy": np.floor(12.0 * t) % 5 + 0.3 * noise,
        "steps/exact": np.floor(12.0 * t) % 5,
        "saw/exact": (step % 600) / 600.0,
        "walk": noise.cumsum(),
        "slow_noise": np.convolve(noise, np.exp(-np.arange(200) / 40), "same"),
        "counts": rng.poisson(3.0 * t).astype(np.float64),
        "constant": np.full(N, 0.7),
        "huge": 1e300 * noise,
        "tiny": 1e-300 * noise,
    }
    found = {name: (step, values) for name, values in of_steps.items()}
    found |= {
        "eval/acc": (evals, 1.0 - np.exp(-evals / 900) + 0.02 * rng.normal(size=len(evals))),
        "few/250": (step[:250], np.exp(-step[:250] / 60) + 0.1 * noise[:250]),
        "few/1000": (step[:1000], np.exp(-step[:1000] / 100) + 0.1 * noise[:1000]),
        "few/far_apart": (apart, rng.normal(size=len(apart))),
        "x/log_uniform": (sparse, 5.0 * (sparse + 1.0) ** -0.2 + 0.1 * rng.normal(size=len(sparse))),
        "x/dense_then_sparse": (dense, 3.0 * np.exp(-dense / 60_000) + 0.2 * rng.normal(size=len(dense))),
    }
    return found


def beside(x: Floats, y: Floats, line: Trace) -> float:
    """The share of a line that is not on its data; x ascends."""
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = x[keep].astype(np.float64), y[keep]
    at, values = line.gapped()
    order = ~np.isnan(at)
    own = np.linspace(0, len(at) - 1, min(PLACES, len(at))).astype(np.intp)
    shares = []
    for places in (np.linspace(x[0], x[-1], PLACES), at[own]):
        with np.errstate(invalid="ignore"):
            drawn = np.interp(places, at[order], values[order]) if order.all() else _broken(places, line)
        here = np.flatnonzero(np.isfinite(drawn))
        reach = NEAR * (x[-1] - x[0])
        first, last = np.searchsorted(x, places - reach), np.searchsorted(x, places + reach, side="right")
        before, after = np.searchsorted(x, places, side="right") - 1, np.searchsorted(x, places)
        before, after = np.maximum(before, 0), np.minimum(after, len(x) - 1)
        first, last = np.minimum(first, before), np.maximum(last, after + 1)
        far = x[after] - x[before] > reach
        first[far] = np.searchsorted(x, x[before[far]] - reach)
        last[far] = np.searchsorted(x, x[after[far]] + reach, side="right")
        off = 0
        for i in here.tolist():
            near = y[first[i] : last[i]]
            low, high = near.min(), near.max()
            slack = 1e-9 * max(abs(low), abs(high))
            off += not low - slack <= drawn[i] <= high + slack
        shares.append(off / max(len(here), 1))
    return max(shares)


def _broken(places: Floats, line: Trace) -> Floats:
    """A line at some places in x; NaN where it is broken."""
    drawn = np.interp(places, line.x.astype(np.float64), line.y)
    after = np.searchsorted(line.x, places)
    inside = line.x[np.minimum(after, len(line) - 1)] != places
    drawn[inside & np.isin(after, line.breaks)] = np.nan
    return drawn


def drawn_line(curve: Curve) -> Trace:
    """The line as a picture has it."""
    if curve.smooth is None:
        return Trace.of(curve.x, curve.y)
    return Trace.of(curve.x if curve.smooth_x is None else curve.smooth_x, curve.smooth)


def of_values(x: npt.NDArray[np.int64], y: Floats, options: PlotOptions | None = None) -> float:
    """The share of the line of one run that is beside its data."""
    run = PlotRun("local", "truth", "r", "r")
    (curve,) = curves_of(
        Overlay("m", ("m",)), [run], {"m": [Points(x, y)]}, options or PlotOptions(), columns=COLUMNS
    ).each
    return beside(curve.x, curve.y, drawn_line(curve))


def of_cache(cache: Cache, options: PlotOptions | None = None) -> Iterator[tuple[str, str, float]]:
    """Project, metric and the worst share of any run, for each metric and axis."""
    options = options or PlotOptions()
    for entity, project in [(one["entity"], one["name"]) for one in query.list_projects(cache, limit=None)]:
        refs = query.run_refs(cache, (entity, project))
        drawn = shown(cache, refs, options)
        try:
            metrics = query.plot_metrics(cache, refs, [], all_metrics=True, include_system=True)
        except WandbsyncError:
            continue  # it has no numbers
        for metric in metrics:
            axis = drawn.source.axis(metric)
            loaded: list[Points | WandbsyncError] = []
            for run in drawn.runs:
                try:
                    loaded.append(Points(*drawn.source.load(run, metric, axis)))
                except WandbsyncError as error:  # noqa: PERF203
                    loaded.append(error)
            try:
                curves = curves_of(
                    Overlay(metric, (metric,)), drawn.runs, {metric: loaded}, options, axis, columns=COLUMNS
                )
            except NothingToDraw:
                continue
            shares = [beside(one.x, one.y, drawn_line(one)) for one in curves.each if np.isfinite(one.y).any()]
            yield f"{entity}/{project}", f"{metric} ({axis})", max(shares)


def made(folder: Path) -> Cache:
    """A cache of values as trainings have them, a run for each."""
    cache = Cache(folder)
    for name, (step, values) in kinds().items():
        ref = RunRef("local", "made", name.replace("/", "-"))
        count = len(step)
        rows = Columns([name], np.zeros(count, np.int32), step, values, np.zeros(count, np.uint8), None, count)
        record = RunRecord("finished", "local", display_name=name, created_at=1.7e9, summary={})
        cache.commit([Share(ref, None, record, streams={HISTORY: [rows]})])
    return cache


def written(folder: Path) -> Cache:
    """A cache of runs that the SDK wrote: several metrics of different rhythm, with system metrics and their times."""
    from wandbsync.sync import sync_local

    env = {**os.environ, "WANDB_SILENT": "true", "WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, __file__, "--write", str(folder)], check=True, env=env)
    cache = Cache(folder / "cache")
    sync_local(cache, [folder])
    return cache


def _write(folder: Path) -> None:
    import wandb

    series = kinds()
    settings = wandb.Settings(x_stats_sampling_interval=0.1)
    for names in (("loss/llm", "lr/cosine", "grad_norm/spikes"), ("reward", "reward/sparse", "walk")):
        run = wandb.init(project="written", id=names[0].replace("/", "-"), dir=folder, settings=settings)
        for step in range(0, N, 3):
            row = {name: float(series[name][1][step]) for name in names}
            run.log(row | ({"eval/score": math.sqrt(step)} if step % 300 == 0 else {}), step=step)
        run.finish()


def report(name: str, found: Iterable[tuple[str, str, float]]) -> list[float]:
    shares = []
    for project, metric, share in found:
        shares.append(share)
        mark = "" if share <= ALLOWED else "   <-- beside its data"
        print(f"{project:<16} {metric:<36} {100.0 * (1.0 - share):7.2f} % on its data{mark}")
    good = sum(share <= ALLOWED for share in shares)
    print(f"{name}: {good} of {len(shares)} metrics have at least {1.0 - ALLOWED:.0%} of their line on its data\n")
    return shares


def measure(room: Path, *, quick: bool = False) -> list[Measured]:
    """For `make bench`: the worst line."""
    lines, sdk = [], written(room / "written")
    for what, cache, axis in (
        ("made", made(room / "made"), "auto"),
        ("written by the SDK", sdk, "auto"),
        ("against relative time", sdk, "relative"),
    ):
        shares = [share for _, _, share in of_cache(cache, PlotOptions(x=axis))]
        title = f"default line beside its data, worst of {len(shares)} metrics {what}"
        lines.append(Measured(title, max(shares), None, "of it", f"<= {ALLOWED}"))
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> int:
    if sys.argv[1:2] == ["--write"]:
        _write(Path(sys.argv[2]))
        return 0
    shares: list[float] = []
    for name in sys.argv[1:]:
        shares += report(name, of_cache(Cache(Path(name))))
    if not sys.argv[1:]:
        with tempfile.TemporaryDirectory() as room:
            shares += report("made", of_cache(made(Path(room) / "made")))
            sdk = written(Path(room) / "sdk")
            shares += report("written by the SDK", of_cache(sdk))
            shares += report("the same against relative time", of_cache(sdk, PlotOptions(x="relative")))
    return int(any(share > ALLOWED for share in shares))


if __name__ == "__main__":
    sys.exit(main())
