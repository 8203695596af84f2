"""Where plots go: names of metrics as files and folders. Pure; nothing here touches a disk.

Whatever a metric is called, its path stays inside the folder it is meant for, its parts are at most 200 bytes long, and
no two metrics of one folder share a file, not even where "Loss" and "loss" are the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from ..folder.names import LONGEST, NamedRun, folded, output_folder, safe_part, short_hash

PlotRun = NamedRun
SUFFIXES = (".png", ".svg", ".pdf")
NOT_FOLDERS = (".json", ".csv", ".parquet", ".html")  # files of ours too


def plot_files(
    metrics: Iterable[str],
    *,
    group_by_prefix: bool = False,
    taken: Mapping[str, str] | None = None,
    suffix: str = SUFFIXES[0],
    beside: str | None = None,
) -> dict[str, PurePosixPath]:
    """For each metric the file of its plot, relative to the output folder.

    The metric a/b becomes a_b.png, with `group_by_prefix` in the folder a, as the predecessor has it. Where several
    metrics want one file, the one that is spelt like it gets it (else the first in the alphabet) and the others get a
    hash of their name. `taken` says which metric each file there belongs to; a file of another metric is not given
    away, nor is the one with the suffix `beside`, which a picture brings along.
    """
    owners = {folded(path): metric for path, metric in (taken or {}).items()}
    files = {}
    wanted = {metric: _wanted(metric, group_by_prefix, suffix) for metric in metrics}
    for metric in sorted(wanted, key=lambda metric: (wanted[metric].stem != metric, metric)):
        path = wanted[metric]
        if any(owners.get(one, metric) != metric for one in _with(path, beside)):
            path = path.with_name(safe_part(path.stem, longest=LONGEST - 16) + f"-{short_hash(metric)}{suffix}")
        owners |= dict.fromkeys(_with(path, beside), metric)
        files[metric] = path
    return {metric: files[metric] for metric in wanted}


def _with(path: PurePosixPath, beside: str | None) -> list[str]:
    """A picture's file and the one beside it, as they are told apart."""
    return [folded(str(path)), *([folded(str(path.with_suffix(beside)))] if beside else [])]


def _wanted(metric: str, group_by_prefix: bool, suffix: str) -> PurePosixPath:
    folder = PurePosixPath()
    prefix, _, rest = metric.partition("/")
    if group_by_prefix and prefix and rest:
        part = safe_part(prefix)
        # A folder must not stand where a file of ours may want to be.
        folder = PurePosixPath(f"{part}_" if part.lower().endswith((*SUFFIXES, *NOT_FOLDERS)) else part)
    metric = metric.replace(".*.", ".")  # of all devices: not every file system takes a *
    return folder / (safe_part(metric, longest=LONGEST - len(suffix)) + suffix)


__all__ = ["PlotRun", "output_folder", "plot_files"]
