"""What a command does without, so that it starts sooner."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


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


def without_pandas() -> None:
    """Hide it from this process.

    Arrow imports pandas with the first array it makes, wherever that is installed, to see whether what it is given is a
    frame: a sixth of a second and 40 MB, and no command has a frame.
    """
    sys.meta_path.insert(0, _Absent("pandas"))


def quick_start() -> None:
    """For a command that imports much, computes for a moment and ends.

    There is no matrix to multiply with many threads, whose start takes half of numpy's; what is imported is no garbage;
    and what one thread reads must not wait, at each of its hundred pieces, for the import in another.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()
    sys.setswitchinterval(1e-4)
