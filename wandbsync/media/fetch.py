"""Bring files of a run into a folder: what is there stays, what this machine has is copied, the rest is fetched.

    claim names --> at hand? --no--> ask for addresses, a hundred at a time --> fetch --> check --> keep --> rename

Until it is checked and on the disk a file lies in a hidden folder under another name, so one that shows is whole. Which
file of which run has which name stands in metadata.json before the first byte is asked for: another process at work in
the same folder, or the next one after a crash, gives no name away twice.
"""

from __future__ import annotations

import contextlib
import stat
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from .. import files as made
from ..errors import (
    CacheError,
    ExpiredURL,
    NotFound,
    NothingCached,
    NotSignedIn,
    Stopped,
    Unreachable,
    UsageError,
    WandbsyncError,
)
from ..folder import metadata
from ..folder.names import NamedRun, output_folder
from ..folder.scratch import Scratch, scratch
from ..model import FileRecord
from . import content, record
from .content import Content
from .names import REPLACED
from .record import COPIED, DOWNLOADED, FAILED, UNCHANGED, FileResult, Wanted

WORKERS = 4  # files under way at once
URLS_AT_ONCE = 100  # few enough that the last address is used before it expires
GIVE_UP_AFTER = 3  # files in a row for which nobody could be reached


@dataclass(frozen=True, slots=True)
class Link:
    """Where a file can be fetched for a while and, if the server said so with it, what it is by now."""

    url: str
    file: FileRecord | None = None


Urls = Callable[[Sequence[str]], Mapping[str, "str | Link"]]
Fetch = Callable[[str, Path], int]


def download(
    run: NamedRun,
    chosen: Sequence[FileRecord],
    folder: Path | None = None,
    *,
    urls: Urls | None,
    fetch: Fetch,
    media: Path | None,
    now: datetime,
    force: bool = False,
    patterns: Sequence[str] = (),
    workers: int = WORKERS,
    tell: Callable[[FileResult], None] | None = None,
) -> list[FileResult]:
    """Bring files of a run into a folder (None: the default one); one result each, in their order.

    `urls` gives the addresses of some files by name, `fetch` writes what is at an address to a new path; both are
    called from several threads. Without `urls` nobody is asked. `media` keeps what was fetched, for later and offline.
    `force` fetches also what is at hand. `patterns` are noted in metadata.json. `tell` hears of each result at once, in
    the caller's thread.

    A file that fails does not stop the others; if all fail nothing is left behind. Raises WandbsyncError if the folder
    or its metadata.json cannot be used, and Stopped or KeyboardInterrupt after noting what was done.
    """
    files = list({file.name: file for file in chosen}.values())
    if not files:
        return []
    folder = output_folder([run]) if folder is None else folder.expanduser()
    results: dict[str, FileResult] = {}
    with ExitStack() as stack:
        with _os_errors(folder):
            stack.callback(_remove_if_empty, [path for path in (folder, *folder.parents) if not path.exists()])
            made.output_folder(folder)
            with metadata.locked(folder):
                parts = stack.enter_context(scratch(folder))
                wanted = record.claim(folder, run, files)
        store = content.Store(media, stack) if media else None
        work = _Work(folder, parts, store, urls, fetch, force)
        try:
            with contextlib.closing(_carry_out(work, wanted, workers)) as coming:
                for result in coming:
                    results[result.file.name] = result
                    if tell:
                        tell(result)
        except BaseException:
            with contextlib.suppress(OSError):
                record.note(folder, run, wanted, results, patterns, now)
            raise
        with _os_errors(folder):
            record.note(folder, run, wanted, results, patterns, now)
    return [results[file.name] for file in files]


def _carry_out(work: _Work, wanted: Sequence[Wanted], workers: int) -> Generator[FileResult, None, None]:
    """The results as they come. When it is closed no thread is at work any more."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="download")
    try:
        missing = []
        for one, result in _as_done({pool.submit(work.at_hand, one): one for one in wanted}):
            if result is None:
                missing.append(one)
            else:
                yield result
        order = {one.file.name: number for number, one in enumerate(wanted)}
        missing.sort(key=lambda one: order[one.file.name])
        for start in range(0, len(missing), URLS_AT_ONCE):
            some = missing[start : start + URLS_AT_ONCE]
            links = work.links([one.file.name for one in some])
            for _, result in _as_done({pool.submit(work.from_server, one, links): one for one in some}):
                assert result
                yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _as_done(futures: Mapping[Future[Any], Wanted]) -> Iterator[tuple[Wanted, FileResult | None]]:
    for future in as_completed(futures):
        yield futures[future], future.result()


class _Work:
    """What one file after the other needs; its methods run in several threads."""

    def __init__(
        self,
        folder: Path,
        parts: Scratch,
        store: content.Store | None,
        urls: Urls | None,
        fetch: Fetch,
        force: bool,
    ) -> None:
        self.folder, self.parts, self.store = folder, parts, store
        self.urls, self.fetch, self.force = urls, fetch, force
        self._hopeless: WandbsyncError | None = None  # why nothing more is asked of the server
        self._unreached = 0
        self._lock = threading.Lock()

    def at_hand(self, one: Wanted) -> FileResult | None:
        """Leave it, or copy it from this machine; None if only the server has it."""
        try:
            if one.file.local_path is not None and content.read_md5(one.file.md5) is None:
                return self._from_this_machine(one)
            if not self.force and (md5 := _unchanged(one, one.file)):
                return FileResult(one.file, UNCHANGED, one.path, md5)
            part = self.parts.new()
            found = self._copy(one.file, part)
            if found:
                return FileResult(one.file, COPIED, one.path, found.md5_text, note=self._place(one, part, found))
        except (OSError, WandbsyncError) as error:
            return _failed(one.file, error)
        if self.urls is None:
            reason = f"the bytes of {one.file.name} are not on this machine"
            return _failed(one.file, NothingCached(reason, hint="leave --offline out to download them"))
        return None

    def _from_this_machine(self, one: Wanted) -> FileResult:
        """A file that only this machine has, as it is now: a run that is still going may be writing it."""
        for _ in range(3):
            file = _as_it_is(one.file)
            if not self.force and (md5 := _unchanged(one, file)):
                return FileResult(file, UNCHANGED, one.path, md5)
            part = self.parts.new()
            found = content.copy(Path(file.local_path or ""), part)
            if _as_it_is(file) == file:
                return FileResult(file, COPIED, one.path, found.md5_text, note=self._place(one, part, found))
            part.unlink()
        raise WandbsyncError(f"{one.file.name} changed while it was copied", hint="try again in a moment")

    def _copy(self, file: FileRecord, part: Path) -> Content | None:
        """A copy of what this machine has, if that is the file that is meant. Trouble with it is none with the file."""
        md5 = content.read_md5(file.md5)
        if md5 is None:
            return None
        with contextlib.suppress(OSError):
            if file.local_path is not None:
                if content.copy(Path(file.local_path), part) == Content(file.size, md5):
                    return Content(file.size, md5)
                part.unlink()
        part.unlink(missing_ok=True)
        if self.store and not (self.force and self.urls):
            with contextlib.suppress(OSError):
                return self.store.take(md5, file.size, part)
            part.unlink(missing_ok=True)
        return None

    def links(self, names: Sequence[str]) -> Mapping[str, Link] | WandbsyncError:
        """Addresses of some files, or why there are none."""
        if self._hopeless:
            return self._hopeless
        assert self.urls
        try:
            return {name: link if isinstance(link, Link) else Link(link) for name, link in self.urls(names).items()}
        except Stopped:
            raise
        except (NotSignedIn, Unreachable) as error:
            self._hopeless = error
            return error
        except WandbsyncError as error:
            return error

    def from_server(self, one: Wanted, links: Mapping[str, Link] | WandbsyncError) -> FileResult:
        try:
            return self._fetched(one, links)
        except Stopped:
            raise
        except (OSError, WandbsyncError) as error:
            return _failed(one.file, error)

    def _fetched(self, one: Wanted, links: Mapping[str, Link] | WandbsyncError) -> FileResult:
        """Fetch, check, keep, show. An address that expired, or content that does not fit, is asked for once more."""
        try:
            file, part, found, received = self._checked(one.file, links)
        except (ExpiredURL, _Unfit):
            file, part, found, received = self._checked(one.file, self.links([one.file.name]))
        made.sync(part)
        notes = [self._keep(part, found, file), self._place(one, part, found)]
        note = "; ".join(note for note in notes if note)
        return FileResult(file, DOWNLOADED, one.path, found.md5_text, received, note or None)

    def _checked(
        self, file: FileRecord, links: Mapping[str, Link] | WandbsyncError
    ) -> tuple[FileRecord, Path, Content, int]:
        """The file as its link describes it, where its bytes are, what they are, how many were received."""
        if isinstance(links, WandbsyncError):
            raise links
        if self._hopeless:
            raise self._hopeless
        if file.name not in links:
            raise NotFound(f"{file.name} is not on the server any more", hint="--refresh lists what there is")
        link = links[file.name]
        file, part = replace(link.file or file, name=file.name), self.parts.new()
        try:
            received = self._reach(link.url, part)
            found = content.of_file(part)
            if not found or not _fits(file, found):
                size = found.size if found else 0
                wrong = "has another checksum" if size == file.size else f"has {size:,} bytes and not {file.size:,}"
                raise _Unfit(f"what came for {file.name} {wrong}")
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return file, part, found, received

    def _reach(self, url: str, part: Path) -> int:
        """Fetch, and note whether anybody was there."""
        try:
            received = self.fetch(url, part)
        except Unreachable as error:
            with self._lock:
                self._unreached += 1
                if self._unreached >= GIVE_UP_AFTER:
                    self._hopeless = error
            raise
        self._unreached = 0
        return received

    def _keep(self, part: Path, found: Content, file: FileRecord) -> str | None:
        """Keep it for later; why not, if that cannot be: the file itself is none the worse."""
        if self.store and content.read_md5(file.md5):
            try:
                self.store.put(part, found)
            except OSError as error:
                return f"not kept in the cache: {_words(error)}"
        return None

    def _place(self, one: Wanted, part: Path, found: Content) -> str | None:
        """Show a file that is whole. Somebody else's file that is in the way is kept under another name; which is told.

        A link in the way is such a file: it is moved, not followed.
        """
        if one.ours:
            part.replace(one.path)
            return None
        with metadata.locked(self.folder):
            there = None
            with contextlib.suppress(FileNotFoundError):
                there = one.path.lstat()
            note = None
            # A process beside us may have put the same file there.
            if there and not stat.S_ISDIR(there.st_mode) and content.of_file(one.path) != found:
                aside = metadata.set_aside(one.path, one.path.with_name(one.path.name + REPLACED))
                note = f"what was there is {aside.name} now"
            part.replace(one.path)
        return note


class _Unfit(WandbsyncError):
    """The bytes are not those of the file."""

    hint = "it may have changed meanwhile: --refresh lists it anew"


def _as_it_is(file: FileRecord) -> FileRecord:
    """A file of this machine by what the disk says now: it may have grown since it was listed."""
    assert file.local_path
    now = Path(file.local_path).stat()
    return replace(file, size=now.st_size, updated_at=now.st_mtime)


def _unchanged(one: Wanted, file: FileRecord) -> str | None:
    """The MD5 of the file in the folder if it is the one that is meant.

    Without an MD5 from the server: if nobody touched what was downloaded, and the server did not touch it since.
    """
    try:
        there = one.path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(there.st_mode) or there.st_size != file.size:
        return None
    md5 = content.read_md5(file.md5)
    if md5 is None:
        stamp = record.stamp(file.updated_at)
        if stamp is None or one.entry.get("updated_at") != stamp or one.entry.get("size") != file.size:
            return None
        md5 = content.read_md5(str(one.entry.get("md5")))
    found = content.of_file(one.path)
    return found.md5_text if found and md5 and found == Content(file.size, md5) else None


def _fits(file: FileRecord, found: Content) -> bool:
    md5 = content.read_md5(file.md5)
    return found.size == file.size and md5 in (None, found.md5)


def _failed(file: FileRecord, error: OSError | WandbsyncError) -> FileResult:
    if isinstance(error, CacheError) and isinstance(error.__cause__, OSError):
        error = error.__cause__  # of the disk: it names a file that people never see
    if isinstance(error, OSError):
        told = WandbsyncError(f"cannot get {file.name}: {_words(error)}")
        told.__cause__ = error
        error = told
    return FileResult(file, FAILED, None, error=error)


def _words(error: OSError) -> str:
    """What an error of the disk or the network says; never the address that was asked, which is a secret."""
    return error.strerror or type(error).__name__


@contextmanager
def _os_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{folder} is not a folder", hint="choose another with --output") from error
    except OSError as error:
        raise WandbsyncError(
            f"cannot use the folder {folder}: {_words(error)}", hint="choose another with --output"
        ) from error


def _remove_if_empty(made: Iterable[Path]) -> None:
    """Folders that were made for nothing, innermost first."""
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()
