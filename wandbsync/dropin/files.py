"""The files of a run: their names and sizes from the cache, their bytes from this machine or the server, checked."""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace as replace_record
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import NotFound, UsageError
from ..files import output_folder
from ..library.console import NAME as CONSOLE_LOG
from ..library.console import write_console
from ..model import FileRecord, is_time
from .pages import Pages
from .refusals import FILE, refused

if TYPE_CHECKING:
    from .run import Run


class Files(Pages["File"]):
    """The files that fit: by their names, or by a pattern as SQL's LIKE has it (`%` any text, `_` any character)."""

    def __init__(self, run: Run, names: Sequence[str] = (), *, pattern: str | None = None, per_page: int = 50) -> None:
        if names and pattern:
            raise ValueError("files are asked for by names or by a pattern, not by both")
        super().__init__(self._fit, per_page)
        self.run, self._names, self._pattern = run, list(names), pattern

    def _fit(self) -> list[File]:
        files = self.run._ask(files=True).files(self.run._ref)
        if self._names:
            files = [file for file in files if file.name in self._names]
            if CONSOLE_LOG in self._names and not any(file.name == CONSOLE_LOG for file in files):
                return [*(File(file, self.run) for file in files), *self._console()]
        if self._pattern:
            like = "".join({"%": ".*", "_": "."}.get(char, re.escape(char)) for char in self._pattern)
            files = [file for file in files if re.fullmatch(like, file.name, re.DOTALL)]
        return [File(file, self.run) for file in files]

    def _console(self) -> list[File]:
        """output.log of a run that has no such file, as it is made from the console lines."""
        with tempfile.TemporaryDirectory() as folder:
            made = write_console(self.run._ask(rows=True), self.run._ref, Path(folder))
        return [File(replace_record(made, local_path=None), self.run, is_made=True)] if made else []

    def __repr__(self) -> str:
        return f"<Files {'/'.join(self.run.path)} ({len(self)})>"


class File:
    """One file. Nothing is fetched before `download`."""

    def __init__(self, record: FileRecord, run: Run, *, is_made: bool = False) -> None:
        """`is_made`: the run has no such file, it is made from the console lines."""
        self.run = run
        self._record, self._is_made = record, is_made
        self.name = record.name
        self.size = record.size
        self.mimetype = record.mimetype or ""
        self.md5 = record.md5
        self.updated_at = _time(record.updated_at)

    @property
    def url(self) -> str:
        """The lasting address, which asks for the API key."""
        return self.run._file_url(self.name)

    def __getattr__(self, name: str) -> Any:
        if name in ("sizeBytes", "size_bytes"):
            return self.size
        if name == "updatedAt":
            return self.updated_at
        if name in FILE:
            raise refused(f"{name} of a file", f"wandb.Api().run(path).file({self.name!r}).{name}")
        raise AttributeError(f"{self!r} has no attribute {name!r}")

    def download(
        self, root: str = ".", replace: bool = False, exist_ok: bool = False, api: Any = None
    ) -> io.TextIOWrapper:
        """Bring the file to `root`, below it as its name says, and open it.

        A copy on this machine that is what the server says is taken, else it is fetched, checked, and kept for later.
        Raises ValueError if it is there already and neither `replace` nor `exist_ok` says what then, NothingCached
        offline, Unreachable ...
        """
        path = self._path_in(root)
        if path.exists() and not replace:
            if exist_ok:
                return path.open()
            raise ValueError(
                f"{path} is there already: pass replace=True to overwrite it, or exist_ok=True to leave it as it is"
            )
        output_folder(path.parent)
        self.fetch(path)
        return path.open()

    def _path_in(self, root: str) -> Path:
        """Where the file goes; names come from strangers and must not leave `root`."""
        path = os.path.normpath(os.path.join(root, self.name))  # noqa: PTH118 - nothing is resolved
        if os.path.isabs(self.name) or Path(os.path.relpath(path, root)).parts[0] == os.pardir:  # noqa: PTH117
            raise UsageError(f"the file {self.name} would leave {root}", hint="it is not downloaded")
        return Path(path)

    def _can_be_had(self) -> bool:
        """Whether there is such a file, here or on a server that may be asked."""
        from ..media import content

        if self._is_made or self._record.local_path is not None or not self.run._mirror.wanted.offline:
            return not self._is_made
        md5 = content.read_md5(self.md5)
        return md5 is not None and content.place(self.run._mirror.cache_dir / "media", md5).exists()

    def fetch(self, path: Path) -> None:
        """Put the bytes at a path, whole or not at all."""
        from .. import media

        if self.name == CONSOLE_LOG and not self._can_be_had():
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".wandbsync-") as folder:
                made = write_console(self.run._mirror.cache, self.run._ref, Path(folder))
                if made and made.local_path:
                    Path(made.local_path).replace(path)
                    return
        mirror, ref = self.run._mirror, self.run._ref
        named = self.run._named
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".wandbsync-") as folder:
            with mirror.server() as server:
                (result,) = media.download(
                    named,
                    [self._record],
                    Path(folder),
                    urls=None if mirror.wanted.offline else lambda names: server().file_urls(ref, names),
                    fetch=lambda url, to: server().download(url, to),
                    media=mirror.cache_dir / "media",
                    now=datetime.now(),
                )
            if result.error or result.path is None:
                raise result.error or NotFound(f"{self.name} of {ref} did not come")
            result.path.replace(path)

    def __repr__(self) -> str:
        return f"<File {self.name} ({self.mimetype}) {_size(float(self.size))}>"


def _time(seconds: float | None) -> str | None:
    if seconds is None or not is_time(seconds):
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _size(size: float) -> str:
    """Bytes in the SDK's words."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if (shown := round(size, 1)) < 1024:
            return f"{shown}{unit}"
        size /= 1024
    return f"{round(size, 1)}TiB"
