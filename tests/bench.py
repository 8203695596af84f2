"""`make bench`: what wandbsync costs, as ratios to something everybody has, measured in the same run.

    python tests/bench.py [PART ...] [--quick] [--markdown FILE]

Product and peer take turns and the medians are compared, so that a busy machine weighs on both. Times of a command are
of the whole process. Nothing here passes or fails: a goal stands beside what it is for. All goes to bench.json too.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bench_api
import bench_daemon
import bench_library
import bench_local
import bench_plot
from measured import Measured

PARTS = {
    "local": ("Logs of this machine, and commands from the cache", bench_local.measure),
    "api": ("The W&B server as a source, beside the SDK on the same server", bench_api.measure),
    "plots": ("Plots, beside pandas and pyplot with the predecessor's algorithm", bench_plot.measure),
    "library": ("The library, beside Arrow and the SDK", bench_library.measure),
    "daemon": ("The daemon beside training jobs", bench_daemon.measure),
}


def machine() -> dict[str, Any]:
    """What was measured on, and with what."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in cpu.splitlines() if line.startswith("model name")]
    installed = {one.name: one.version for one in importlib.metadata.distributions()}
    names = ("wandb", "duckdb", "pyarrow", "numpy", "matplotlib", "pandas")
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {name: installed.get(name) for name in names},
    }


def table(lines: Iterable[Measured]) -> str:
    """Lines as a table of Markdown."""
    rows = ["| what | ours | peer | ours / peer | goal | |", "|---|---:|---:|---:|---|---|"]
    for one in lines:
        peer = "" if one.theirs is None else f"{one.theirs:.3g} {one.unit}"
        ratio = "" if one.theirs is None else f"{one.ours / one.theirs:.3g}"
        rows.append(f"| {one.what} | {one.ours:.3g} {one.unit} | {peer} | {ratio} | {one.goal} | {one.note} |")
    return "\n".join(rows)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    options.add_argument("--quick", action="store_true", help="smaller, in less than three minutes")
    options.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables there")
    chosen = options.parse_args()
    facts, found, sheets, began = machine(), {}, [], time.monotonic()
    print(f"{facts['processor']}, {facts['cores']} cores, Python {facts['python']}, load {facts['load']:.1f}")
    for name in chosen.parts or PARTS:
        title, measure = PARTS[name]
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as room:
            lines = measure(Path(room), quick=chosen.quick)
        print(f"\n{title}\n")
        for line in lines:
            print(line)
        found[name] = [line.facts() for line in lines]
        sheets.append(f"## {title}\n\n{table(lines)}\n")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    everything = {"machine": facts, "quick": chosen.quick, "seconds": time.monotonic() - began, "peak_mb": peak} | found
    Path("bench.json").write_text(json.dumps(everything, indent=2) + "\n")
    if chosen.markdown:
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        on = f"{facts['processor']}, {facts['cores']} cores, load {facts['load']:.1f} at the start"
        chosen.markdown.write_text("\n".join([f"{on}; Python {facts['python']}, {versions}.", "", *sheets]))


if __name__ == "__main__":
    sys.exit(main())
