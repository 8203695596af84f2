"""The pictures of a plan, drawn one after the other; what was drawn before is taken from memory.

While one picture is drawn, a thread reads what the next one needs, and another makes a file of the last. numpy and
matplotlib are imported with the first picture that has to be drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, WandbsyncError
from . import colours, crew, rendered
from .names import PlotRun
from .options import PlotOptions
from .plan import Overlay, Picture, Plan, PlotResult, Sorting, natural
from .recall import Recall
from .source import Source

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from matplotlib.figure import Figure

    from .curves import Curves, NothingToDraw, Points
    from .picture import Drawn
    from .subject import Subject

AT_ONCE = 2  # pictures that are still being made files while others are drawn


class Studio:
    """Draws the pictures of a plan, one after the other."""

    def __init__(
        self,
        planned: Plan,
        options: PlotOptions,
        source: Source,
        by: Sorting,
    ) -> None:
        self.planned, self.options, self.source, self.by = planned, options, source, by
        self.runs = planned.runs
        self.ahead: dict[int, Future[list[Curves | NothingToDraw]]] = {}
        self.stack = ExitStack()
        self.following: dict[int, int] = {}  # which picture comes after which
        self.threads: Executor | None = None
        self.one_reader = Lock()  # whoever loads need not think of threads
        self.ready = False
        self.page: Figure | None = None
        self.axes: dict[str, str] = {}
        self.recall = Recall(planned, options, source, axis=self._axis, told=self.told, reading=self.one_reader)
        self._slots: dict[str, int] | None = None
        self._subject: Subject | None = None

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.close()

    # -- who is drawn

    def slots(self) -> dict[str, int]:
        """The places in the colours of all that has one."""
        if self._slots is None:
            scope = "/".join(min((run.entity, run.project) for run in self.runs))
            drawn = [str(run) for run in self.runs]
            if self.by.groups is not None:
                scope, drawn = f"{scope} by {','.join(self.options.group_by)}", sorted(set(self.by.groups), key=natural)
            elif self.by.facets is not None:
                scope, drawn = f"{scope} by {','.join(self.options.facet)}", sorted(set(self.by.facets), key=natural)
            self._slots = colours.remembered(self.source.memory, scope, drawn)
        return self._slots

    def subject(self) -> Subject:
        from .subject import Subject

        if self._subject is None:
            self._subject = Subject.of(self.runs, self.slots(), self.by)
        return self._subject

    def names(self) -> list[str]:
        return list(self.by.labels or (run.display_name or run.run_id for run in self.runs))

    def told(self) -> dict[str, Any]:
        """Besides the options, what decides how the pictures look: for metadata.json."""
        slots = self.slots()
        return {
            **{name: names and list(names) for name, names in self.by.all().items()},
            "colours": slots,
            "drawing": self.options.drawing(),
        }

    # -- the pictures

    def results(self) -> list[PlotResult]:
        """Draw them all; if they are many, together with copies of this process."""
        every = range(len(self.planned.pictures))
        todo = [index for index in every if not self.recall.has(index)] if self.source.anew else []
        if crew.hands(len(todo)) == 1:
            return self._some(every)
        self.slots()
        self._get_ready()
        kept = sorted({*every} - {*todo})
        found = dict(zip(todo, crew.shared(todo, self._some, self._anew), strict=True))
        found |= zip(kept, self._some(kept), strict=True)
        return [found[index] for index in every]

    def _anew(self) -> None:
        """In a copy of this process: read from files of one's own."""
        assert self.source.anew is not None
        self.source = self.source.anew()

    def _some(self, indices: Sequence[int]) -> list[PlotResult]:
        """Draw some. While one is drawn the one before is made a file, and the next one's values are read."""
        self.following = dict(pairwise(indices))
        pictures = [self.planned.pictures[index] for index in indices]
        under_way: list[PlotResult | Future[PlotResult]] = []
        for place, (index, picture) in enumerate(zip(indices, pictures, strict=True)):
            try:
                under_way.append(self._result(index, picture))
            except Exception as error:  # whatever is wrong with this metric, the others are not to blame
                under_way.append(_failed(picture, error))
            if place >= AT_ONCE:
                under_way[place - AT_ONCE] = _settled(pictures[place - AT_ONCE], under_way[place - AT_ONCE])
        return [_settled(picture, result) for picture, result in zip(pictures, under_way, strict=True)]

    def _result(self, index: int, picture: Picture) -> PlotResult | Future[PlotResult]:
        axes = [self._axis(metric) for metric in picture.metrics]
        result = PlotResult(
            picture.name,
            None,
            metrics=picture.metrics if picture.metrics != (picture.name,) else (),
            axis=axes[0] if len(set(axes)) == 1 else None,
            data=self._data_file(picture),
        )
        before = self.recall.find(index, result)
        if before is not None:
            return _placed(picture, *before)
        prepared, reasons = self._prepared(index)
        if not prepared:
            return replace(result, data=None, skipped=tuple(r for _, s in reasons for r in s), error=reasons[0][0])
        from .figure import developed
        from .picture import figure_of
        from .style import look_of

        try:
            last, self.page = self.page, None
            self.page, empty = figure_of(prepared, self.subject(), self.options, on=last)
        except WandbsyncError as error:
            why = tuple(reason for one in prepared for reason in one.skipped)
            return replace(result, data=None, skipped=why, error=error.line())
        develop = developed(self.page, self.options.format, look_of(self.options))
        skipped = [reason for one in prepared for reason in one.skipped]
        skipped += [reason for _, some in reasons for reason in some] + [reason for reason in empty if reason]
        result = replace(_summed(result, prepared), skipped=tuple(skipped))
        if result.data is not None:
            from .data import write

            try:
                write(result.data, prepared, self.options)
            except OSError as error:
                return replace(result, data=None, error=f"cannot write {result.data}: {error.strerror}")
        return self._beside().submit(self._finished, index, picture, result, develop)

    def _finished(self, index: int, picture: Picture, result: PlotResult, develop: Callable[[], bytes]) -> PlotResult:
        content = develop()
        self.recall.keep(index, result, content)
        return _placed(picture, result, content)

    def figure(self, index: int) -> Figure:
        from .picture import figure_of

        prepared, reasons = self._prepared(index)
        if not prepared:
            raise UsageError(reasons[0][0])
        return figure_of(prepared, self.subject(), self.options)[0]

    def _prepared(self, index: int) -> tuple[list[Drawn], list[tuple[str, Sequence[str]]]]:
        """The metrics of a picture that have something to draw; of the others why not, as a whole and run by run."""
        coming = self._read(index)
        self._get_ready()
        from .curves import NothingToDraw
        from .picture import chosen_of, prepare

        read = coming.result()
        self.ahead.pop(index)
        axes = [self._axis(overlay.metrics[0]) for overlay in self.planned.pictures[index].overlays]
        following = self.following.get(index)
        if following is not None and not self.recall.has(following):
            self._read(following)
        prepared: list[Drawn] = []
        chosen: set[int] | None = None
        reasons: list[tuple[str, Sequence[str]]] = []
        for curves, axis in zip(read, axes, strict=True):
            if isinstance(curves, NothingToDraw):
                reasons.append((curves.line(), curves.skipped))
            else:
                if self.options.grid and not prepared:  # the same runs stand out in all of its panels
                    chosen = chosen_of(curves, self.subject(), self.options)
                prepared.append(prepare(curves, self.subject(), self.options, axis, chosen))
        return prepared, reasons

    def _get_ready(self) -> None:
        """Import what draws, and set it up once for all pictures."""
        if not self.ready:
            from . import picture, style  # noqa: F401

            self.stack.enter_context(style.own_settings(style.look_of(self.options)))
            self.ready = True

    # -- what they need

    def _beside(self) -> Executor:
        """Threads that read the next picture and finish the last."""
        if self.threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self.threads = self.stack.enter_context(ThreadPoolExecutor(2))
        return self.threads

    def _read(self, index: int) -> Future[list[Curves | NothingToDraw]]:
        """Begin to read what a picture needs."""
        if index not in self.ahead:
            overlays = self.planned.pictures[index].overlays
            self.ahead[index] = self._beside().submit(lambda: [self._curves(overlay) for overlay in overlays])
        return self.ahead[index]

    def _curves(self, overlay: Overlay) -> Curves | NothingToDraw:
        """What is drawn of metrics in one pair of axes. Nothing here needs matplotlib, which is imported meanwhile."""
        from .curves import NothingToDraw, curves_of
        from .style import look_of
        from .trace import COLUMNS

        look = look_of(self.options)
        try:
            return curves_of(
                overlay,
                self.runs,
                {metric: [self._load(run, metric) for run in self.runs] for metric in overlay.metrics},
                self.options,
                self._axis(overlay.metrics[0]),
                columns=int(look.width * look.dpi * COLUMNS) if self.by.groups is None else None,
            )
        except NothingToDraw as error:
            return error

    def _load(self, run: PlotRun, metric: str) -> Points | WandbsyncError:
        from .curves import Points

        with self.one_reader:
            try:
                return Points(*self.source.load(run, metric, self._axis(metric)))
            except WandbsyncError as error:
                return error

    def _axis(self, metric: str) -> str:
        if metric not in self.axes:
            self.axes[metric] = self.source.axis(metric)
        return self.axes[metric]

    def _data_file(self, picture: Picture) -> Path | None:
        return picture.path.with_suffix(f".{self.options.data}") if self.options.data else None


def _failed(picture: Picture, error: Exception) -> PlotResult:
    return PlotResult(picture.name, None, error=f"{picture.name} cannot be drawn: {type(error).__name__}: {error}")


def _settled(picture: Picture, result: PlotResult | Future[PlotResult]) -> PlotResult:
    if isinstance(result, PlotResult):
        return result
    try:
        return result.result()
    except Exception as error:
        return _failed(picture, error)


def _placed(picture: Picture, result: PlotResult, content: bytes) -> PlotResult:
    try:
        rendered.place(picture.path, content)
    except OSError as error:
        return replace(result, path=None, error=f"cannot write {picture.path}: {error.strerror}")
    return replace(result, path=picture.path)


def _summed(result: PlotResult, prepared: Sequence[Drawn]) -> PlotResult:
    """With the runs of all its metrics and how many values these have."""
    points: dict[PlotRun, int] = {}
    bad: dict[PlotRun, int] = {}
    for one in prepared:
        for run, count, wrong in zip(one.runs, one.points, one.non_finite, strict=True):
            points[run] = points.get(run, 0) + count
            bad[run] = bad.get(run, 0) + wrong
    return replace(result, runs=tuple(points), points=tuple(points.values()), non_finite=tuple(bad.values()))
