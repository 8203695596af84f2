"""The points of one metric of one run, against whatever the x axis is to be; and what they depend on.

An x axis is `step`, `sample` (machine metrics have samples instead of steps), `time` (unix seconds), `relative`
(seconds since the run began, as it counts them itself) or the name of another metric of the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..cache import Cache, catalog
from ..cache.rows import streams_of
from ..errors import NotFound, nearest
from ..model import HISTORY, SYSTEM, RunRef, is_time
from .lists import get_run
from .metrics import is_sampled, known_metrics, numbers
from .rows import series, stream_with

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    # The steps and numbers of a run's metric in a stream (None: the one that it is in), as `series` gives them.
    Read = Callable[[RunRef, str, str | None], tuple[NDArray[np.int64], NDArray[np.float64]]]

AUTO, STEP, SAMPLE, TIME, RELATIVE = "auto", "step", "sample", "time", "relative"
BUILT_IN = {TIME: "_timestamp", RELATIVE: "_runtime"}


def check_axis(cache: Cache, refs: Sequence[RunRef], x: str) -> None:
    """Raises NotFound, with near matches, if x is no axis and no run has such a metric."""
    if x in (AUTO, STEP, TIME, RELATIVE):
        return
    known = known_metrics(cache, refs)
    if x.removeprefix("metric:") not in known:
        raise NotFound(
            f"no metric {x} for the x axis",
            hint=nearest(x, [STEP, TIME, RELATIVE, *(key for key in known if key != "_step")]),
        )


def axis_of(cache: Cache, refs: Sequence[RunRef], key: str, x: str = AUTO) -> str:
    """The x axis of a metric.

    `auto` is the step metric that define_metric gave it, if all of the runs that have the metric agree and have that
    metric too; else the step. A metric of the machine is sampled by the clock, whatever `define_metric("*")` says: it
    is shown against the time since the run began. `metric:NAME` is a metric that is named like an axis.
    """
    if x == AUTO and is_sampled(cache, refs, key):
        return RELATIVE if all(_is_timed(cache, ref) for ref in refs if _has(cache, ref, key)) else SAMPLE
    if x == AUTO:
        found = {_step_metric(cache, ref, key) for ref in refs if _has(cache, ref, key)}
        x = f"metric:{found.pop()}" if len(found) == 1 and None not in found else STEP
    if x.startswith("metric:") or x not in (STEP, TIME, RELATIVE):
        x = x.removeprefix("metric:")
        if x != "_step":
            return f"metric:{x}" if x in (STEP, TIME, RELATIVE, SAMPLE) else x
        x = STEP
    return SAMPLE if x == STEP and is_sampled(cache, refs, key) else x


def _has(cache: Cache, ref: RunRef, key: str) -> bool:
    with catalog.translated(cache.folder):
        streams = streams_of(cache, ref)
        asked = "SELECT 1 FROM metrics WHERE stream IN (?, ?) AND key = ?"
        return bool(cache.con.execute(asked, (streams.get(HISTORY), streams.get(SYSTEM), key)).fetchone())


def _is_timed(cache: Cache, ref: RunRef) -> bool:
    """Whether it is known when the machine was sampled."""
    with catalog.translated(cache.folder):
        asked = "SELECT 1 FROM metrics WHERE stream = ? AND key IN (?, ?)"
        stream = streams_of(cache, ref).get(SYSTEM)
        return bool(cache.con.execute(asked, (stream, BUILT_IN[TIME], BUILT_IN[RELATIVE])).fetchone())


def _step_metric(cache: Cache, ref: RunRef, key: str) -> str | None:
    """What define_metric says; the exact name goes before the longest pattern that ends in `*`.

    A pattern never reaches machine metrics, which no row of the history has (Hugging Face's Trainer defines `*`).
    """
    definitions = get_run(cache, ref)["metadata"].get("define_metric")
    if not isinstance(definitions, dict):
        return None
    fitting = [
        name
        for name in definitions
        if name == key
        or (name.endswith("*") and key.startswith(name.removesuffix("*")) and not key.startswith("system."))
    ]
    for name in sorted(fitting, key=lambda name: (name == key, len(name)), reverse=True):
        one = definitions[name]
        step = one.get("step_metric") if isinstance(one, dict) else None
        if isinstance(step, str) and step != key:
            return step if step == "_step" or _has(cache, ref, step) else None
    return None


def points(
    cache: Cache, ref: RunRef, key: str, axis: str, *, read: Read | None = None
) -> tuple[NDArray[Any], NDArray[np.float64], int]:
    """x and y of a metric, by ascending step, and how many values have no x. Raises NotFound as `numbers` does.

    `read` gives the rows if they are not in the cache, but what is known of them is.
    """
    import numpy as np

    def rows(name: str, stream: str | None = None) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        return read(ref, name, stream) if read else series(cache, ref, name, stream=stream)

    step, value = numbers(cache, ref, key, rows(key))
    if axis in (STEP, SAMPLE):
        return step, value, 0
    name = BUILT_IN.get(axis, axis.removeprefix("metric:"))
    if name == "_step":
        return step, value, 0
    stream = stream_with(cache, ref, key)
    at, x = rows(name, stream)
    if not len(at) and axis == RELATIVE:  # machine metrics of some SDKs have the time only
        at, x = rows(BUILT_IN[TIME], stream)
        x = x - x[0] if len(x) else x
    if axis == TIME:  # what is outside of the years 1 to 9999 is no time
        at, x = at[is_time(x)], x[is_time(x)]
    if not len(at):
        raise NotFound(f"not logged together with {name}")
    if len(at) == len(step) and bool((at == step).all()):
        return x, value, 0
    # Of several values in one row the last counts, as in W&B's own rows.
    place = np.searchsorted(at, step, side="right") - 1
    there = (place >= 0) & (at[np.maximum(place, 0)] == step)
    if not there.any():
        raise NotFound(f"not logged together with {name}")
    return x[place[there]], value[there], int((~there).sum())


def axis_keys(axis: str) -> list[str]:
    """The metrics that an x axis is read from."""
    if axis in (STEP, SAMPLE):
        return []
    found = BUILT_IN.get(axis, axis.removeprefix("metric:"))
    return [found, BUILT_IN[TIME]] if axis == RELATIVE else [found]


def version(cache: Cache, ref: RunRef, keys: Sequence[str]) -> list[Any]:
    """What moves whenever the values of these metrics do; from the catalog alone.

    A stream's rows are only ever added to, so its number and a metric's count say which they are; its statistics are
    there in case a catalog was deleted and numbers were given out again.
    """
    with catalog.translated(cache.folder):
        streams = streams_of(cache, ref)
        found: list[Any] = []
        for name in (HISTORY, SYSTEM):
            for key in dict.fromkeys(keys):
                row = cache.con.execute(
                    "SELECT m.stream, s.rows, m.count, m.kinds, m.nulls, m.nans, m.infinities, m.min, m.max, m.mean, "
                    "m.rest, m.first_step, m.last_step, m.first_value, m.last_value FROM metrics m "
                    "JOIN streams s USING (stream) WHERE m.stream = ? AND m.key = ?",
                    (streams.get(name), key),
                ).fetchone()
                found.append(None if row is None else list(row))
        rows = cache.con.execute(
            "SELECT created_at, rows, last_step FROM runs WHERE entity = ? AND project = ? AND run_id = ?",
            (ref.entity, ref.project, ref.run_id),
        ).fetchone()
        return [*found, *([None] if rows is None else rows if "_step" in keys else rows[:1])]
