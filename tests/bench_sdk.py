"""The SDK in a process of its own, which reads from a server; calls as in bench_server.

Seconds are taken here, without imports and the start of the process; every call has an Api of its own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_server import answer

PLACES = ("HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
TICK = os.sysconf("SC_CLK_TCK")


class Calls:
    def scan(self, path: str, rows: int, *, use_cache: bool) -> list[float]:
        """A list of scan_history(), with nothing in the SDK's cache."""
        import wandb

        _empty_cache()
        run = wandb.Api(timeout=120).run(path)
        watch = Watch()
        found = list(run.scan_history(use_cache=use_cache))
        assert len(found) == rows, (len(found), rows)
        return watch.read()

    def again(self, path: str, rows: int) -> list[float]:
        """The same, with all of it in the SDK's cache."""
        import wandb

        run = wandb.Api(timeout=120).run(path)
        watch = Watch()
        assert len(list(run.scan_history())) == rows
        return watch.read()

    def history(self, path: str, rows: int) -> list[float]:
        """history() with as many samples as there are rows, as dicts."""
        import wandb

        run = wandb.Api(timeout=120).run(path)
        watch = Watch()
        assert len(run.history(samples=rows, pandas=False)) == rows
        return watch.read()

    def exports(self, path: str) -> list[float]:
        """download_history_exports."""
        import wandb

        run = wandb.Api(timeout=120).run(path)
        with tempfile.TemporaryDirectory() as folder:
            watch = Watch()
            run.download_history_exports(folder)
            return watch.read()

    def read_exports(self, path: str, rows: int) -> list[float]:
        """An Api, its run, download_history_exports, and the files read with Arrow: what a script has to do."""
        import pyarrow.parquet as pq
        import wandb

        with tempfile.TemporaryDirectory() as folder:
            watch = Watch()
            wandb.Api(timeout=120).run(path).download_history_exports(folder)
            found = sum(pq.read_table(file).num_rows for file in Path(folder).rglob("*.parquet"))
            assert found == rows, (found, rows)
            return watch.read()

    def loop(self, path: str, runs: int, *, use_cache: bool) -> list[float]:
        """A list of scan_history() of each of the first runs of a project."""
        import wandb

        _empty_cache()
        api = wandb.Api(timeout=120)
        watch = Watch()
        some = api.runs(path, order="+created_at", per_page=runs)
        for i in range(runs):
            list(some[i].scan_history(use_cache=use_cache))
        return watch.read()


class Watch:
    """Seconds that pass, and those of processor time of this process and its children (wandb-core)."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), _processor_seconds()

    def read(self) -> list[float]:
        return [time.perf_counter() - self._start[0], _processor_seconds() - self._start[1]]


def _processor_seconds() -> float:
    mine, spent = {os.getpid()}, time.process_time()
    stats: list[Any] = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        stats.append((int(place.parent.name), int(fields[1]), (int(fields[11]) + int(fields[12])) / TICK))
    for _ in range(3):
        mine |= {number for number, parent, _ in stats if parent in mine}
    return spent + sum(seconds for number, _, seconds in stats if number in mine and number != os.getpid())


def _empty_cache() -> None:
    for place in Path(os.environ["WANDB_CACHE_DIR"]).iterdir():
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    answer(Calls())
