"""A publisher as a process of its own, which may be told to die.

python publishing.py publish CACHE URL MACHINE [TIMES [SECONDS]]     publishes, again and again
python publishing.py die CACHE URL FOLDER     makes FOLDER/n, copies of CACHE and the lake, for n = 1, 2 ...: in each a
                                              publisher died before its n-th step, until one lives to the end
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deaths import death, die_at_each


def publish(cache: Path, url: str, machine: str, times: int = 1, seconds: float = 0.0) -> None:
    from wandbsync.cache import Cache
    from wandbsync.lake import address
    from wandbsync.lake.publish import publish

    for _ in range(times):
        with Cache(cache) as opened:
            report = publish(opened, address.parse(url), machine=machine)
        assert report.problems == [], report.problems
        time.sleep(seconds)


def die_at(dies_at: int) -> None:
    """SIGKILL before the n-th step: a write to the lake is two, before and after, and so is each block of rows."""
    import deltalake

    from wandbsync.lake import here

    step = death(dies_at)

    def around(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            step()
            result = plain(*args, **more)
            step()
            return result

        return call

    def blocks(*args: Any) -> Any:
        for one in plain_blocks(*args):
            step()
            yield one
        step()

    plain_blocks = here.blocks
    here.blocks = blocks  # type: ignore[assignment]
    deltalake.write_deltalake = around(deltalake.write_deltalake)
    deltalake.DeltaTable.delete = around(deltalake.DeltaTable.delete)  # type: ignore[method-assign]


def die(cache: Path, url: Path, folder: Path) -> None:
    def live(n: int) -> None:
        here, lake = folder / str(n) / "cache", folder / str(n) / "lake"
        shutil.copytree(cache, here)
        shutil.copytree(url, lake)
        os.environ["DIES_AT"] = str(n)
        os.execv(sys.executable, [sys.executable, __file__, "publish", str(here), str(lake), "m"])

    die_at_each(itertools.count(1), live)


if __name__ == "__main__":
    if "DIES_AT" in os.environ:
        die_at(int(os.environ.pop("DIES_AT")))
    if sys.argv[1] == "die":
        die(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        publish(Path(sys.argv[2]), sys.argv[3], sys.argv[4], *map(int, sys.argv[5:6]), *map(float, sys.argv[6:7]))
