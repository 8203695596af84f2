"""What the daemon did: a line of JSON for each event, in files that are rotated, and for people on stderr.

The API key is in no message by construction; should one carry it all the same, it is struck out here.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import time
import traceback
from collections.abc import Callable, Collection
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

from .. import files
from ..terminal import echo, json_text

BYTES, FILES = 5_000_000, 3  # of a log file, and how many older ones are kept


class _Files(logging.handlers.RotatingFileHandler):
    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=files.private_opener)


class Log:
    """Tells events with fields: `log.note("synced", project="me/demo", rows=10)`."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        out: TextIO | None = None,
        verbose: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`folder`: of the files; None for none. `out`: where people read. `verbose`: details there too."""
        self._clock, self._out = clock, out
        self._shown = "detail" if verbose else "note"
        self._secrets: set[str] = set()
        self._file: logging.Handler | None = None
        if folder is not None:
            files.private_folder(folder)
            self._file = _Files(folder / "daemon.log", maxBytes=BYTES, backupCount=FILES, encoding="utf-8", delay=True)
            self._file.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is no reason to end

    def hide(self, secrets: Collection[str]) -> None:
        """Strike these out from now on."""
        self._secrets |= {secret for secret in secrets if secret}

    def detail(self, event: str, **fields: Any) -> None:
        """What happens all the time."""
        self._tell("detail", event, fields)

    def note(self, event: str, **fields: Any) -> None:
        self._tell("note", event, fields)

    def problem(self, event: str, **fields: Any) -> None:
        self._tell("problem", event, fields)

    def crash(self, event: str, error: BaseException, **fields: Any) -> None:
        """A problem that nobody foresaw, with its traceback."""
        self._tell("problem", event, {**fields, "traceback": "".join(traceback.format_exception(error))})

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _tell(self, level: str, event: str, fields: dict[str, Any]) -> None:
        at = datetime.fromtimestamp(self._clock(), timezone.utc)
        time_text = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time_text, "level": level, "event": event, **fields}
        text = json_text(self._without_secrets(json.dumps(line, ensure_ascii=False, default=str)))
        if self._file is not None:
            self._file.handle(logging.LogRecord("wandbsync", logging.INFO, "", 0, text, None, None))
        if self._out is not None and (level != "detail" or self._shown == "detail"):
            words = " ".join(f"{name}={value}" for name, value in fields.items() if name != "traceback")
            try:
                echo(self._without_secrets(f"{time_text[:19]}Z {event} {words}".rstrip()), file=self._out)
            except OSError:
                self._out = None  # whoever read it is gone

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text
