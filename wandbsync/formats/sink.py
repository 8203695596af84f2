"""Where results go: to stdout, or to a file that is put in place when it is whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

from ..errors import WandbsyncError
from ..files import replacing


@contextmanager
def opened(file: Path | None) -> Iterator[TextIO]:
    """The file, or stdout, to write text to, or to its `buffer` UTF-8. Raises WandbsyncError if that fails."""
    if file is not None:
        with beside(file) as path, path.open("w", encoding="utf-8", newline="") as out:
            yield out
        return
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_stdout()
        raise WandbsyncError(f"cannot write the output: {error.strerror or error}") from error


@contextmanager
def beside(file: Path) -> Iterator[Path]:
    """A path beside a file, put in place of it when it is whole; what is no file, as a pipe, is written itself."""
    special = file.exists() and not file.is_file()
    try:
        with nullcontext(file) if special else replacing(file.resolve()) as path:  # what a link names, not the link
            yield path
    except BrokenPipeError:
        raise
    except OSError as error:
        raise WandbsyncError(f"cannot write {file}: {error.strerror or error}") from error


def _drop_stdout() -> None:
    """Let what could not be written go: at its end Python would try again, and say so its own way."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
