"""The read side: projects, runs, metrics, files, histories and SQL, from the cache alone.

    names    what people write -> a project, a run        rows     histories and series, as Arrow and numpy
    lists    projects, runs, files, the cache             sql      one read-only query
    metrics  what a run logged, and its statistics        status   how fresh and complete all of it is
    points   a metric against any x axis, for drawing     attributes   config, tags, summary: for labels and filters
    filters  which runs are meant, as W&B asks for them   wide     histories with a column for each metric,
                                                                   made of `pieces` and `cells`
    connection  SQL that is asked of the cache as it stands at each query

Lists are answered from the catalog, without importing Arrow or DuckDB. Nothing here can reach the network.
"""

from .attributes import attribute, check_names, filled, group_names, matching, placeholders, shown
from .filters import choose
from .lists import (
    all_runs,
    cache_info,
    count_runs,
    gaps,
    get_run,
    list_files,
    list_projects,
    list_runs,
    own_summaries,
    timestamp,
)
from .metrics import is_system, known_metrics, list_metrics, metric_types, plot_metrics, split_names
from .names import find_project, find_projects, find_run, find_runs, is_pattern, run_names, run_refs
from .points import axis_keys, axis_of, check_axis, points, version
from .rows import history, long, long_schema, series
from .sql import Answer, sql
from .status import status

__all__ = [
    "Answer",
    "all_runs",
    "attribute",
    "axis_keys",
    "axis_of",
    "cache_info",
    "check_axis",
    "check_names",
    "choose",
    "count_runs",
    "filled",
    "find_project",
    "find_projects",
    "find_run",
    "find_runs",
    "gaps",
    "get_run",
    "group_names",
    "history",
    "is_pattern",
    "is_system",
    "known_metrics",
    "list_files",
    "list_metrics",
    "list_projects",
    "list_runs",
    "long",
    "long_schema",
    "matching",
    "metric_types",
    "own_summaries",
    "placeholders",
    "plot_metrics",
    "points",
    "run_names",
    "run_refs",
    "series",
    "shown",
    "split_names",
    "sql",
    "status",
    "timestamp",
    "version",
]
