"""The read side: projects, runs, metrics, files, histories and SQL, from the cache alone.

    names    what people write -> a project, a run        rows     histories and series, as Arrow and numpy
    lists    projects, runs, files, the cache             sql      one read-only query
    metrics  what a run logged, and its statistics        status   how fresh and complete all of it is
    points   a metric against any x axis, for drawing     attributes   config, tags, summary: for labels and filters

Lists are answered from the catalog, without importing Arrow or DuckDB. Nothing here can reach the network.
"""

from .attributes import attribute, check_names, filled, group_name, matching, placeholders, shown
from .lists import cache_info, count_runs, get_run, list_files, list_projects, list_runs, timestamp
from .metrics import is_system, known_metrics, list_metrics, metric_types, plot_metrics, split_names
from .names import find_project, find_run, run_names, run_refs
from .points import axis_keys, axis_of, check_axis, points, version
from .rows import history, series
from .sql import Answer, sql
from .status import status

__all__ = [
    "Answer",
    "attribute",
    "axis_keys",
    "axis_of",
    "cache_info",
    "check_axis",
    "check_names",
    "count_runs",
    "filled",
    "find_project",
    "find_run",
    "get_run",
    "group_name",
    "history",
    "is_system",
    "known_metrics",
    "list_files",
    "list_metrics",
    "list_projects",
    "list_runs",
    "matching",
    "metric_types",
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
