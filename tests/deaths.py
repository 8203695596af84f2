"""Processes that die before their n-th step, as by a power cut, for every n."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any


def death(n: int) -> Callable[[], None]:
    """To be called at each step: the n-th call is the end of this process."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == n:
            os.kill(os.getpid(), 9)

    return step


def before(plain: Callable[..., Any], step: Callable[[], None]) -> Callable[..., Any]:
    """The same function, and its calls are steps."""
    return lambda *args, **more: (step(), plain(*args, **more))[1]


def die_at_each(moments: Iterable[int], live: Callable[[int], object]) -> None:
    """Live once for each n, in a process of its own, until one is not killed; exits with its code if that is not 0."""
    for n in moments:
        child = os.fork()
        if not child:
            try:
                live(n)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code != -9:
            sys.exit(code)
