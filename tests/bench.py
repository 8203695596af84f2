"""`make bench`: what wandbsync costs, as ratios to something everybody has, measured in the same run.

    python tests/bench.py [PART ...] [--quick] [--record]

Product and peer take turns and the medians are compared, so that a busy machine weighs on both. Times of a command are
of the whole process. Nothing here passes or fails: a goal stands beside what it is for. All goes to bench.json too, and
with --record the tables to BENCHMARKS.md and the pictures of how costs grow beside it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import bench_api
import bench_daemon
import bench_growth
import bench_lake
import bench_library
import bench_local
import bench_plot
import chaos
import hazards
import truth
from measured import Measured

PARTS = {
    "local": ("Logs of this machine, and commands from the cache", bench_local.measure),
    "api": ("The W&B server as a source, beside the SDK on the same server", bench_api.measure),
    "plots": ("Plots, beside pandas and pyplot with the predecessor's algorithm", bench_plot.measure),
    "truth": ("The line that plots draw by default, beside its data", truth.measure),
    "library": ("The library, beside Arrow and the SDK", bench_library.measure),
    "lake": ("A lake, beside Arrow and Polars", bench_lake.measure),
    "daemon": ("The daemon beside training jobs", bench_daemon.measure),
}
GROWTH, HAZARDS, CHAOS = "growth", "hazards", "chaos"
ROOT = Path(__file__).parent.parent
RECORD, PICTURES = ROOT / "BENCHMARKS.md", ROOT / "docs" / "growth"
MARK = "<!-- measured: what follows is written by `make bench BENCH=--record` -->"


def machine() -> dict[str, Any]:
    """What was measured on, and with what."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in cpu.splitlines() if line.startswith("model name")]
    installed = {one.name: one.version for one in importlib.metadata.distributions()}
    names = ("wandb", "duckdb", "pyarrow", "numpy", "matplotlib", "pandas", "polars", "deltalake")
    return {
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {name: installed.get(name) for name in names},
    }


def table(lines: Iterable[Measured]) -> str:
    """Lines as a table of Markdown."""
    rows = ["| what | ours | peer | ours / peer | goal | | |", "|---|---:|---:|---:|---|---|---|"]
    for one in lines:
        met = {True: "met", False: "**not met**", None: ""}[one.met]
        peer = "" if one.theirs is None else f"{one.theirs:.3g} {one.unit}"
        ratio = "" if one.theirs is None else f"{one.ours / one.theirs:.3g}"
        rows.append(f"| {one.what} | {one.ours:.3g} {one.unit} | {peer} | {ratio} | {one.goal} | {met} | {one.note} |")
    return "\n".join(rows)


def growth(curves: Sequence[bench_growth.Curve]) -> str:
    """The curves as Markdown: each as a picture and a table."""
    parts = ["## How costs grow\n"]
    for one in curves:
        picture = (PICTURES / f"{one.name}.png").relative_to(ROOT)
        parts.append(
            f"### {one.title}\n\n{one.told[0].upper()}{one.told[1:]}.\n\n![{one.title}]({picture})\n\n{one.table()}\n"
        )
    return "\n".join(parts)


def right_or_wrong(found: Iterable[hazards.Found]) -> str:
    """What is known to go wrong, as Markdown."""
    rows = ["| hazard | logged | the SDK | wandbsync |", "|---|---|---|---|"]
    for one in found:
        print(hazards.line(one), file=sys.stderr, flush=True)
        theirs = re.sub(r"(/[\w.-]+){2,}", "…", hazards.mark(one.sdk))  # where it was on this machine
        rows.append(f"| {one.name} | {one.logged} | {theirs} | {hazards.mark(one.ours)} |")
    return "\n".join(["## What each has in the end where things go wrong\n", *rows, ""])


def harmed(found: Iterable[chaos.Row]) -> str:
    """What came of harm, as Markdown."""
    rows = ["| harm | tried | told | healed | wrong | |", "|---|---:|---:|---:|---:|---|"]
    for one in found:
        print(chaos.line(one), file=sys.stderr, flush=True)
        healed = f"{one.healed:,} of {one.ill:,}" if one.ill else ""
        rows.append(f"| {one.name} | {one.tried:,} | {one.told:,} | {healed} | {len(one.wrong):,} | {one.note} |")
    about = "Neither told nor wrong: it did no harm. A kill is one SIGKILL; the readers are four, for a minute."
    return "\n".join([f"## What harm makes of it\n\n{about}\n", *rows, ""])


def told(facts: dict[str, Any]) -> str:
    """The machine, as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    on = f"{facts['processor']}, {facts['cores']} cores, load {facts['load']:.1f} at the start"
    return f"{facts['date']}; {on}; Python {facts['python']}, {versions}.\n"


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("parts", nargs="*", metavar="PART", help=", ".join([*PARTS, GROWTH, HAZARDS, CHAOS]))
    options.add_argument("--quick", action="store_true", help="smaller, in less than three minutes, without growth")
    options.add_argument("--record", action="store_true", help="write what was measured to BENCHMARKS.md")
    chosen = options.parse_args()
    facts, found, sheets, began = machine(), {}, [], time.monotonic()
    print(f"{facts['processor']}, {facts['cores']} cores, Python {facts['python']}, load {facts['load']:.1f}")
    usual = [*PARTS, *([] if chosen.quick else [GROWTH]), *([HAZARDS, CHAOS] if chosen.record else [])]
    for name in chosen.parts or usual:
        if name == HAZARDS:
            sheets.append(right_or_wrong(hazards.every()))
            continue
        if name == CHAOS:
            sheets.append(harmed(chaos.every()))
            continue
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as room:
            if name == GROWTH:
                curves = bench_growth.measure(Path(room))
                found[name] = [curve.facts() for curve in curves]
                sheets.append(growth(curves))
                if chosen.record:
                    bench_growth.pictures(curves, PICTURES)
                continue
            title, measure = PARTS[name]
            lines = measure(Path(room), quick=chosen.quick)
        print(f"\n{title}\n")
        for line in lines:
            print(line)
        found[name] = [line.facts() for line in lines]
        sheets.append(f"## {title}\n\n{table(lines)}\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    everything = {"machine": facts, "quick": chosen.quick, "seconds": time.monotonic() - began, "peak_mb": peak} | found
    Path("bench.json").write_text(json.dumps(everything, indent=2) + "\n")
    if chosen.record:
        head = RECORD.read_text().partition(MARK)[0]
        RECORD.write_text("\n".join([f"{head}{MARK}\n", told(facts), *sheets]))


if __name__ == "__main__":
    sys.exit(main())
