"""Which pictures of a plan were drawn before: one is known by the values that it shows, and by how it shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import rendered
from .names import PlotRun
from .options import PlotOptions
from .plan import Plan, PlotResult
from .source import Source


class Recall:
    """The pictures of a plan in a source's memory, by their place in the plan; none if the source has no memory.

    `axis` names the x axis of a metric; `told` is what decides, besides values and names, how the pictures look.
    `reading` is held while the source is asked.
    """

    def __init__(
        self,
        planned: Plan,
        options: PlotOptions,
        source: Source,
        *,
        axis: Callable[[str], str],
        told: Callable[[], Mapping[str, Any]],
        reading: AbstractContextManager[Any],
    ) -> None:
        self.planned, self.options, self.source = planned, options, source
        self.axis, self.told, self.reading = axis, told, reading
        self._names: dict[int, str] = {}

    def has(self, index: int) -> bool:
        """Whether it looks as if a picture need not be drawn."""
        name, memory = self._name(index), self.source.memory
        return bool(name and memory and (memory / f"{name}.json").exists())

    def find(self, index: int, result: PlotResult) -> tuple[PlotResult, bytes] | None:
        """What was said of a picture when it was drawn, and the picture; None if it has to be drawn."""
        name, memory = self._name(index), self.source.memory
        found = rendered.find(memory, name, self.options.format) if name and memory else None
        if found is None or (result.data is not None and not _written_for(result.data, found[1])):
            return None
        content, told = found
        return replace(_recalled(result, self.planned.runs, told), cached=True), content

    def keep(self, index: int, result: PlotResult, content: bytes) -> None:
        """Remember a picture that was drawn, if it can be known again."""
        name, memory = self._name(index), self.source.memory
        if name and memory:
            rendered.keep(memory, name, self.options.format, content, _remembered(result, self.planned.runs))

    def _name(self, index: int) -> str | None:
        """The name of the picture in memory; None if the versions of what it shows are not known."""
        version = self.source.version
        if version is None or self.source.memory is None:
            return None
        if index not in self._names:
            runs = self.planned.runs
            metrics = self.planned.pictures[index].metrics
            axes = [self.axis(metric) for metric in metrics]
            with self.reading:
                versions = [
                    [version(run, metric, axis) for run in runs] for metric, axis in zip(metrics, axes, strict=True)
                ]
            self._names[index] = rendered.digest(
                {
                    "metrics": metrics,
                    "axes": axes,
                    "versions": versions,
                    "runs": [[str(run), run.display_name] for run in runs],
                    "grid": self.options.grid,
                    "data": self.options.data,
                    **self.told(),
                }
            )
        return self._names[index]


def _written_for(data: Path, told: Mapping[str, Any]) -> bool:
    """Whether a file of numbers is the one that was written with a picture."""
    return data.exists() and list(_file_stamp(data) or ()) == told.get("data_stamp")


def _file_stamp(path: Path | None) -> tuple[str, int, int] | None:
    if path is None:
        return None
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns


def _remembered(result: PlotResult, runs: Sequence[PlotRun]) -> dict[str, Any]:
    """What is said of a picture, as JSON."""
    return {
        "runs": [runs.index(run) for run in result.runs],
        "points": result.points,
        "non_finite": result.non_finite,
        "skipped": result.skipped,
        "data_stamp": _file_stamp(result.data),
    }


def _recalled(result: PlotResult, runs: Sequence[PlotRun], told: Mapping[str, Any]) -> PlotResult:
    return replace(
        result,
        runs=tuple(runs[i] for i in told["runs"]),
        points=tuple(told["points"]),
        non_finite=tuple(told["non_finite"]),
        skipped=tuple(told["skipped"]),
    )
