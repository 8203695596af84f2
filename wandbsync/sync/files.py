"""Small files that are mirrored with the runs: chosen by name and size, fetched when all rows are here, kept by MD5.

    runs that came --note as owed--> ask for addresses, a hundred runs at a time --> fetch --> check --> keep --> paid

Rows never wait for them, and a run is complete without them: what does not come is tried again later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from ..cache import Cache
from ..cache.files import METADATA, owe, owed, paid, put_metadata, read_metadata, server_files
from ..errors import NotSignedIn, RateLimited, Stopped, Unreachable, WandbsyncError
from ..media.content import Content, Store, of_file, read_md5
from ..media.globs import matches
from ..model import FileRecord, RunRef
from ..plan.server import retry_after
from ..sources.api.client import Api
from ..sources.api.record import plain_environment

RUNS_AT_ONCE = 100
NAMES_AT_ONCE = 500
IN_MEMORY = 1 << 20  # bytes; a larger file goes to the disk as it comes
FEW = 20  # runs that are asked for one by one, where a server does not tell of many at once
GIVE_UP_AFTER = 3  # files in a row for which nobody could be reached


@dataclass(frozen=True, slots=True)
class MirroredFiles:
    """Which files are mirrored with their runs: `wandb-metadata.json`, and those that fit."""

    patterns: tuple[str, ...] = ()  # globs, as `download-plots` has them
    max_size: int | None = 1_000_000  # bytes; None: as large as it is

    def chosen(self, files: Collection[FileRecord]) -> list[FileRecord]:
        return [
            one
            for one in files
            if one.size > 0
            and (self.max_size is None or one.size <= self.max_size)
            and (one.name == METADATA or any(matches(one.name, pattern) for pattern in self.patterns))
        ]


def fetch_files(
    cache: Cache,
    api: Api,
    project: tuple[str, str],
    came: Collection[RunRef],
    wanted: MirroredFiles,
    *,
    enough: Callable[[], bool],
    now: Callable[[], float],
) -> int:
    """Fetch what is wanted of the runs that came, and of those still owed; how many files came. Raises Stopped."""
    due = {ref for ref, (retry_at, _) in owed(cache, *project).items() if retry_at <= now()} | set(came)
    with ExitStack() as stack:
        store = Store(cache.folder / "media", stack)
        todo = {ref: _missing(store, wanted.chosen(files)) for ref, files in server_files(cache, due).items()}
        owe(cache, [ref for ref, files in todo.items() if files], retry_at=now())
        paid(cache, [ref for ref in due if not todo[ref]])
        count = 0
        for some in _batches({ref: todo[ref] for ref in sorted(due) if todo[ref]}):
            if enough():
                break
            got = _Batch(cache, api, store, now).fetch(some)
            count += got
            if not got:
                break  # the server or its storage is away, or has something against it: later
        return count


def _batches(todo: dict[RunRef, list[FileRecord]]) -> Iterator[dict[RunRef, list[FileRecord]]]:
    """The same, so many runs and names at a time that they fit into one question."""
    some: dict[RunRef, list[FileRecord]] = {}
    names: set[str] = set()
    for ref, files in todo.items():
        names |= {one.name for one in files}
        if some and (len(some) == RUNS_AT_ONCE or len(names) > NAMES_AT_ONCE):
            yield some
            some, names = {}, {one.name for one in files}
        some[ref] = files
    if some:
        yield some


def _missing(store: Store, files: Sequence[FileRecord]) -> list[FileRecord]:
    return [one for one in files if (md5 := read_md5(one.md5)) and not store.path(md5).exists()]


class _Batch:
    """The files of some runs."""

    def __init__(self, cache: Cache, api: Api, store: Store, now: Callable[[], float]) -> None:
        self.cache, self.api, self.store, self.now = cache, api, store, now
        self.unreached = 0

    def fetch(self, files: dict[RunRef, list[FileRecord]]) -> int:
        """Fetch, and note what came; how many files did."""
        urls = self._urls(files)
        jobs = [(ref, one, urls.get(ref, {}).get(one.name)) for ref, some in files.items() for one in some]
        with ThreadPoolExecutor(self.api.transport.budget.downloads, thread_name_prefix="files") as pool:
            came = list(pool.map(lambda job: self._one(job[1], job[2]), jobs))
        lacking = {ref for (ref, _, _), there in zip(jobs, came, strict=True) if not there}
        known = owed(self.cache, *_project(files))
        for ref in lacking:
            failures = known[ref][1] + 1 if ref in known else 1
            owe(self.cache, [ref], retry_at=self.now() + retry_after(failures), failed=True)
        paid(self.cache, [ref for ref in files if ref not in lacking])
        said = {}
        for (ref, file, _), there in zip(jobs, came, strict=True):
            if there and file.name == METADATA and (md5 := read_md5(file.md5)):
                said[ref] = plain_environment(read_metadata(self.store.path(md5)))
        put_metadata(self.cache, {ref: found for ref, found in said.items() if found})
        return sum(came)

    def _urls(self, files: dict[RunRef, list[FileRecord]]) -> dict[RunRef, dict[str, str]]:
        names = sorted({one.name for some in files.values() for one in some})
        found: dict[RunRef, dict[str, str]] = {}
        with contextlib.suppress(WandbsyncError):
            entity, project = _project(files)
            by_id = self.api.urls_of_runs(entity, project, [ref.run_id for ref in files], names)
            found = {RunRef(entity, project, run_id): urls for run_id, urls in by_id.items()}
        for ref in list(files)[:FEW] if not found else ():
            with contextlib.suppress(WandbsyncError):
                found[ref] = self.api.file_urls(ref, [one.name for one in files[ref]])
        return found

    def _one(self, file: FileRecord, url: str | None) -> bool:
        """Whether a file came, and is what the server says it is."""
        if url is None or self.unreached >= GIVE_UP_AFTER:
            return False
        md5 = read_md5(file.md5)
        assert md5 is not None
        part = self.store.new()
        try:
            got = self.api.load(url, part, hold=min(file.size, IN_MEMORY))
            if isinstance(got, bytes):
                part.write_bytes(got)
            found = of_file(part)
            if found != Content(file.size, md5):
                return False
            self.store.put(part, found)
        except Stopped:
            raise
        except (RateLimited, Unreachable, NotSignedIn):
            self.unreached += 1
            return False
        except (OSError, WandbsyncError):
            return False
        finally:
            part.unlink(missing_ok=True)
        self.unreached = 0
        return True


def _project(files: dict[RunRef, list[FileRecord]]) -> tuple[str, str]:
    ref = next(iter(files))
    return ref.entity, ref.project
