"""The runs of a project that fit a filter, in an order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import query
from ..errors import NotFound
from ..freshness import Question
from .pages import Pages
from .run import Run

if TYPE_CHECKING:
    from ..library import Mirror


class ProjectNotFoundError(NotFound, ValueError):
    """There is no such project; a ValueError as in the SDK."""


class Runs(Pages[Run]):
    """Runs, found when first looked at."""

    def __init__(
        self,
        mirror: Mirror,
        entity: str,
        project: str,
        filters: Mapping[str, Any] | None = None,
        order: str = "+created_at",
        per_page: int = 50,
    ) -> None:
        super().__init__(self._find, per_page)
        self.entity, self.project = entity, project
        self.filters, self.order = dict(filters or {}), order or "+created_at"
        self._mirror = mirror

    def _find(self) -> list[Run]:
        name = f"{self.entity}/{self.project}"
        try:
            cache = self._mirror.ask(Question(name))
            found = query.find_project(cache, name)
        except NotFound as error:
            raise ProjectNotFoundError(f"Could not find project {self.project}: {error}", hint=error.hint) from error
        records = [run for run in query.all_runs(cache, found) if run["deleted_at"] is None]
        seen = {ref.run_id: one.cursor and one.cursor.described for ref, one in cache.mirrored(*found).items()}
        own = query.own_summaries(cache, found)
        chosen = query.choose(records, self.filters, self.order)
        return [Run(self._mirror, one, seen.get(one["id"]) or None, own.get(one["id"]), runs=Runs) for one in chosen]

    def histories(
        self,
        samples: int = 500,
        keys: list[str] | None = None,
        x_axis: str = "_step",
        format: str = "default",
        stream: str = "default",
    ) -> Any:
        """`Run.history` of all of them, each row with its `run_id`: dicts, or a "pandas" or "polars" DataFrame."""
        if format not in ("default", "pandas", "polars"):
            raise ValueError(f"Invalid format: {format}. Must be one of 'default', 'pandas', 'polars'")
        ids = tuple(run.id for run in self.objects)
        if ids:  # all at once, not one by one
            self._mirror.ask(Question(f"{self.entity}/{self.project}", ids, rows=True))
        parts = []
        for run in self.objects:
            rows = run.history(samples=samples, keys=keys, x_axis=x_axis, pandas=False, stream=stream)
            if rows:
                parts.append((run.id, rows))
        if format == "pandas":
            return _pandas(parts)
        if format == "polars":
            return _polars(parts)
        return [row | {"run_id": run_id} for run_id, rows in parts for row in rows]

    def upgrade_to_full(self) -> None:
        """Nothing is left out of a record here."""

    def __repr__(self) -> str:
        return f"<Runs {self.entity}/{self.project}>"


def _pandas(parts: list[tuple[str, list[dict[str, Any]]]]) -> Any:
    import pandas as pd

    if not parts:
        return pd.DataFrame()
    frames = []
    for run_id, rows in parts:
        frame = pd.DataFrame.from_records(rows)
        frame["run_id"] = run_id
        frames.append(frame)
    whole = pd.concat(frames).reset_index(drop=True)
    return whole[sorted(whole.columns)]


def _polars(parts: list[tuple[str, list[dict[str, Any]]]]) -> Any:
    import polars as pl

    if not parts:
        return pl.DataFrame()
    frames = [pl.from_records(rows).with_columns(pl.lit(run_id).alias("run_id")) for run_id, rows in parts]
    whole = pl.concat(frames, how="vertical")
    return whole.select(sorted(whole.columns))
