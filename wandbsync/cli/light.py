"""How commands begin and end: without what they can do without."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn


class _Absent:
    """Has Python find a module, but never load it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        loader: Any = self  # its class is not worth the import of importlib.abc
        return ModuleSpec(fullname, loader) if fullname == self.name else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        raise ModuleNotFoundError(f"wandbsync's commands do without {spec.name}", name=spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def begin() -> None:
    """For every command: without pandas, and without threads for matrices.

    Arrow imports pandas with the first array it makes, wherever that is installed, to see whether what it is given is a
    frame: a sixth of a second and 40 MB, and no command has a frame. The threads take half of numpy's start, and no
    matrix here is large.
    """
    sys.meta_path.insert(0, _Absent("pandas"))
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def hurry() -> None:
    """For a command that imports much, computes for a moment and ends.

    What is imported is no garbage; and what one thread reads must not wait, at each of its hundred pieces, for the
    import in another.
    """
    gc.disable()
    sys.setswitchinterval(1e-4)


def end(code: int) -> NoReturn:
    """End the process at once: all is written and closed by now.

    To take apart what was loaded costs up to a tenth of a second, for nothing; and Arrow, which may still read ahead in
    a lake, aborts if Python ends before it.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)
