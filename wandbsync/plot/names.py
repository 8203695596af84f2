"""Where plots go: names of runs and metrics as files and folders. Pure; nothing here touches a disk.

Whatever a metric or a run is called, its path stays inside the folder it is meant for, its parts are at most 200 bytes
long, and no two metrics of one folder share a file, not even where "Loss" and "loss" are the same name.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath

ROOT = Path("wandb_plots")
LONGEST = 200  # bytes of one part of a path
SUFFIX = ".png"


@dataclass(frozen=True, slots=True)
class PlotRun:
    """A run as far as drawing needs to know it."""

    entity: str
    project: str
    run_id: str
    display_name: str = ""

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.run_id}"


def safe_part(text: str, *, longest: int = LONGEST) -> str:
    """One part of a path made from any text: `/` and `\\` become `_`, as do leading dots and invisible characters.

    What is too long is cut and ends in a hash of the whole, so that two long names stay two.
    """
    chars = [
        "_" if char in "/\\" or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char
        for char in unicodedata.normalize("NFC", text)
    ]
    part = "".join(chars).strip()
    bare = part.lstrip(".")
    part = "_" * (len(part) - len(bare)) + bare
    if not part:
        return "unnamed"
    if len(part.encode()) > longest:
        ending = f"-{_hash(text)}"
        part = part.encode()[: longest - len(ending)].decode(errors="ignore") + ending
    return part


def output_folder(runs: Sequence[PlotRun]) -> Path:
    """wandb_plots/<entity>_<project>/<run_name>_<run_id>, or compare_<id>_<id>... for several runs."""
    first = runs[0]
    if len(runs) == 1:
        run_id = safe_part(first.run_id, longest=100)
        name = first.display_name and safe_part(first.display_name, longest=LONGEST - len(run_id.encode()) - 1)
        last = f"{name}_{run_id}" if name else run_id
    elif len(runs) <= 5:
        last = "compare_" + "_".join(run.run_id for run in runs)
    else:
        last = f"compare_{len(runs)}_runs_{_hash(*(str(run) for run in runs))}"
    return ROOT / safe_part(f"{first.entity}_{first.project}") / safe_part(last)


def plot_files(
    metrics: Iterable[str], *, group_by_prefix: bool = False, taken: Mapping[str, str] | None = None
) -> dict[str, PurePosixPath]:
    """For each metric the file of its plot, relative to the output folder.

    The metric a/b becomes a_b.png, with `group_by_prefix` in the folder a, as the predecessor has it. Where several
    metrics want one file, the one that is spelt like it gets it (else the first in the alphabet) and the others get a
    hash of their name. `taken` says which metric each file there belongs to; a file of another metric is not given
    away.
    """
    owners = {_key(PurePosixPath(path)): metric for path, metric in (taken or {}).items()}
    files = {}
    wanted = {metric: _wanted(metric, group_by_prefix) for metric in metrics}
    for metric in sorted(wanted, key=lambda metric: (wanted[metric].stem != metric, metric)):
        path = wanted[metric]
        if owners.setdefault(_key(path), metric) != metric:
            path = path.with_name(safe_part(path.stem, longest=LONGEST - 16) + f"-{_hash(metric)}{SUFFIX}")
            owners[_key(path)] = metric
        files[metric] = path
    return {metric: files[metric] for metric in wanted}


def _wanted(metric: str, group_by_prefix: bool) -> PurePosixPath:
    folder = PurePosixPath()
    prefix, _, rest = metric.partition("/")
    if group_by_prefix and prefix and rest:
        part = safe_part(prefix)
        # A folder must not stand where a file of ours may want to be.
        folder = PurePosixPath(f"{part}_" if part.lower().endswith((SUFFIX, ".json")) else part)
    return folder / (safe_part(metric, longest=LONGEST - len(SUFFIX)) + SUFFIX)


def _key(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


def _hash(*texts: str) -> str:
    return blake2b("\0".join(texts).encode(errors="surrogatepass"), digest_size=5).hexdigest()
