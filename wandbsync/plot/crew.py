"""Work shared with copies of this process: they have imported all that it has, and need no lock to compute.

A copy is made by fork, which only the thread that calls it survives, so there must be no other thread yet.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")

MOST = 4  # processes; whoever draws a hundred pictures on a large machine has other work there too
EACH = 8  # pieces of work that are worth a copy


def hands(count: int) -> int:
    """How many processes are to share so many pieces of work: one where a copy would not be safe, or not worth it."""
    loaded = {"pyarrow", "duckdb", "deltalake"} & sys.modules.keys()  # they may have threads of their own
    if not hasattr(os, "fork") or loaded or threading.active_count() > 1:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST, cores, count // EACH))


def shared(work: Sequence[int], do: Callable[[Sequence[int]], list[Result]], begin: Callable[[], None]) -> list[Result]:
    """What `do` gives for each piece of work, in this order; every so many-th is done by a copy of this process.

    In a copy `begin` is called first. What a copy does not bring, because it was killed, is done here.
    """
    count = hands(len(work))
    copies = [_copy(work[hand::count], do, begin) for hand in range(1, count)]
    found: list[Result] = [None] * len(work)  # type: ignore[list-item]
    try:
        found[::count] = do(work[::count])
        for hand, (_, place) in enumerate(copies, 1):
            with open(place, "rb", closefd=False) as pipe:
                content = pipe.read()
            try:
                found[hand::count] = pickle.loads(content)
            except (EOFError, pickle.UnpicklingError, ValueError):
                found[hand::count] = do(work[hand::count])
    except BaseException:
        for process, _ in copies:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        raise
    finally:
        for process, place in copies:
            os.close(place)
            os.waitpid(process, 0)
    return found


def _copy(
    work: Sequence[int], do: Callable[[Sequence[int]], list[Result]], begin: Callable[[], None]
) -> tuple[int, int]:
    """A copy that does some of the work; its number, and where its results come from."""
    here, there = os.pipe()
    process = os.fork()
    if process:
        os.close(there)
        return process, here
    code = 1
    try:
        begin()
        with open(there, "wb") as pipe:
            pickle.dump(do(work), pipe)
        code = 0
    finally:
        os._exit(code)  # nothing of what belongs to the original is closed or written again
