"""What a command does without, so that it starts sooner."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Absent:
    """Has Python find a module, but never load it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname == self.name else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        raise ModuleNotFoundError(f"wandbsync's commands do without {spec.name}", name=spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def without_pandas() -> None:
    """Hide it from this process.

    Arrow imports pandas with the first array it makes, wherever that is installed, to see whether what it is given is a
    frame: a sixth of a second and 40 MB, and no command has a frame.
    """
    sys.meta_path.insert(0, _Absent("pandas"))
