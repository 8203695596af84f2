"""A publisher as a process of its own, which may be told to die.

python publishing.py publish CACHE URL MACHINE [TIMES [SECONDS]]     publishes, again and again
python publishing.py die CACHE URL FOLDER     makes FOLDER/n, copies of CACHE and the lake, for n = 1, 2 ...: in each a
                                              publisher died before its n-th step, until one lives to the end
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


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

    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == dies_at:
            os.kill(os.getpid(), 9)

    def counted(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            count()
            result = plain(*args, **more)
            count()
            return result

        return call

    def blocks(*args: Any) -> Any:
        for one in plain_blocks(*args):
            count()
            yield one
        count()

    plain_blocks = here.blocks
    here.blocks = blocks  # type: ignore[assignment]
    deltalake.write_deltalake = counted(deltalake.write_deltalake)
    deltalake.DeltaTable.delete = counted(deltalake.DeltaTable.delete)  # type: ignore[method-assign]


def die(cache: Path, url: Path, folder: Path) -> None:
    n = 0
    while True:
        n += 1
        shutil.copytree(cache, folder / str(n) / "cache")
        shutil.copytree(url, folder / str(n) / "lake")
        child = os.fork()
        if not child:
            try:
                os.environ["DIES_AT"] = str(n)
                os.execv(sys.executable, [sys.executable, __file__, "publish", str(folder / str(n) / "cache"),
                                          str(folder / str(n) / "lake"), "m"])  # fmt: skip
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != -9:
            sys.exit(code)


if __name__ == "__main__":
    if "DIES_AT" in os.environ:
        die_at(int(os.environ.pop("DIES_AT")))
    if sys.argv[1] == "die":
        die(Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        publish(Path(sys.argv[2]), sys.argv[3], sys.argv[4], *map(int, sys.argv[5:6]), *map(float, sys.argv[6:7]))
