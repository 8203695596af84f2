"""What plots show of the cache: the seam between `query`, which knows the rows, and `plot`, which knows how to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from . import query
from .cache import Cache
from .cache.store import DERIVED
from .model import RunRef
from .plot import PlotOptions, PlotRun, Source

if TYPE_CHECKING:
    from .query.points import Read


@dataclass(frozen=True, slots=True)
class Shown:
    """Some runs as `plot.generate` and `plot.compose` want them."""

    runs: list[PlotRun]
    source: Source
    sorting: dict[str, list[str] | None]  # labels, groups, facets and strata of the runs


def shown(
    cache: Cache, refs: Sequence[RunRef], options: PlotOptions, *, read: Read | None = None, alone: bool = False
) -> Shown:
    """The runs with rows, labels and groups. Raises NotFound for an axis, label or group that none of them has.

    `read` gives their rows if they are not in the cache, which then knows the runs only; nothing is remembered of what
    is drawn of them. `alone`: this process is a command's, which copies of it may help.
    """
    query.check_axis(cache, refs, options.x)
    known = [query.get_run(cache, ref) for ref in refs]
    keys_of = {"groups": options.group_by, "facets": options.facet, "strata": options.strata}
    query.check_names(known, [*query.placeholders(options.label or ""), *chain(*keys_of.values())])
    by_run = {
        PlotRun(ref.entity, ref.project, ref.run_id, run["name"]): ref for ref, run in zip(refs, known, strict=True)
    }

    def keys(metric: str, axis: str) -> list[str]:
        return [metric, *query.axis_keys(axis)]

    return Shown(
        list(by_run),
        Source(
            load=lambda run, metric, axis: query.points(cache, by_run[run], metric, axis, read=read),
            axis=lambda metric: query.axis_of(cache, refs, metric, options.x),
            version=None if read else lambda run, metric, axis: query.version(cache, by_run[run], keys(metric, axis)),
            memory=None if read else cache.folder / DERIVED / "plots",
            anew=(lambda: shown(Cache(cache.folder), refs, options).source) if alone and not read else None,
        ),
        {
            "labels": None if options.label is None else [query.filled(options.label, run) for run in known],
            **{name: query.group_names(known, keys) if keys else None for name, keys in keys_of.items()},
        },
    )
