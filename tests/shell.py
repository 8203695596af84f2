"""`wandbsync` as a person or an agent meets it: a process of its own, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def without_wandb() -> dict[str, str]:
    """The environment of this process, but for what it says of W&B."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}


class Shell:
    """Runs `wandbsync` as a process of its own, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.env = {name: value for name, value in without_wandb().items() if not name.startswith("XDG")}
        self.env |= {"HOME": str(folder), "WANDBSYNC_CACHE_DIR": str(self.cache), "COLUMNS": "200"}

    def __call__(self, *words: str, code: int = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "wandbsync", *words],
            cwd=self.folder, env=self.env, capture_output=True, text=True, input=stdin, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *words: str) -> Any:
        def constant(name: str) -> None:
            raise AssertionError(f"{name} is not JSON")

        return json.loads(self(*words, "--json").stdout, parse_constant=constant)

    def error(self, *words: str, code: int) -> str:
        done = self(*words, code=code)
        lines = done.stderr.strip().splitlines()
        assert lines[-1].startswith("error: ") and done.stdout == ""
        return lines[-1]
