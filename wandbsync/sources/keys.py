"""The keys of a run: what the paths of its values are called.

A log has the path of a nested name, ["train", "acc"]; a W&B server has it with dots, "train.acc". They are one key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..model import show_path, spell_path


class Keys:
    """The shown names of a run's key paths. Of two paths that look alike, the second is shown as its path."""

    def __init__(self, known: Mapping[str, Sequence[str]] | None = None, *, dotted: bool = False) -> None:
        """`dotted`: a server told of those known, so the first path that looks like one of them is that key."""
        self.names = {tuple(path): name for name, path in (known or {}).items()}
        self._paths = {name: path for path, name in self.names.items()}
        self._open = set(self._paths) if dotted else set[str]()

    def same(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """The path of the key that looks like this one, if there is one already; else the path itself."""
        return path if path in self.names else self._paths.get(show_path(path), path)

    def show(self, path: tuple[str, ...]) -> str:
        name = self.names.get(path)
        if name is None:
            name = show_path(path).encode("utf-8", "replace").decode()  # JSON can spell half a character: "\\ud83d"
            if name in self._open:
                del self.names[self._paths[name]]
            elif name in self._paths:
                name = spell_path(path).encode("utf-8", "backslashreplace").decode()
            self.names[path] = name
            self._paths[name] = path
        self._open.discard(name)
        return name

    @property
    def paths(self) -> dict[str, tuple[str, ...]]:
        """The names that are not simply their path's only part."""
        return {name: path for path, name in self.names.items() if path != (name,)}
