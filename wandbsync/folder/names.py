"""What a run's folder is called, and names that any file system takes. Pure; nothing here touches a disk."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("wandb_plots")
LONGEST = 200  # bytes of one part of a path


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run by its name, and by the name people see."""

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
    part = unicodedata.normalize("NFC", text)
    if not part.isprintable():
        hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
        part = "".join("_" if unicodedata.category(char) in hidden else char for char in part)
    part = part.replace("/", "_").replace("\\", "_").strip()
    bare = part.lstrip(".")
    part = "_" * (len(part) - len(bare)) + bare
    if not part:
        return "unnamed"
    if len(part.encode()) > longest:
        ending = f"-{short_hash(text)}"
        part = part.encode()[: longest - len(ending)].decode(errors="ignore") + ending
    return part


def output_folder(runs: Sequence[NamedRun]) -> Path:
    """wandb_plots/<entity>_<project>/<run_name>_<run_id>, or compare_<id>_<id>... for several runs."""
    first = runs[0]
    if len(runs) == 1:
        run_id = safe_part(first.run_id, longest=100)
        name = first.display_name and safe_part(first.display_name, longest=LONGEST - len(run_id.encode()) - 1)
        last = f"{name}_{run_id}" if name else run_id
    elif len(runs) <= 5:
        last = "compare_" + "_".join(run.run_id for run in runs)
    else:
        last = f"compare_{len(runs)}_runs_{short_hash(*(str(run) for run in runs))}"
    return ROOT / safe_part(f"{first.entity}_{first.project}") / safe_part(last)


def folded(path: str) -> str:
    """Paths that are one file where "Loss" and "loss" are the same name fold to the same text."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def short_hash(*texts: str) -> str:
    """Ten hex digits that tell texts apart."""
    from hashlib import blake2b

    return blake2b("\0".join(texts).encode(errors="surrogatepass"), digest_size=5).hexdigest()
