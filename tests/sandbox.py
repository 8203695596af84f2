"""A place where the documents' commands work as written: the runs they name, on this machine and on a server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from wandb_server import Server

ROOT = Path(__file__).parent.parent
PIXEL = b"\x89PNG\r\n\x1a\n not much of a picture"
AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def fill(server: Server) -> None:
    """my-team/vision with `3ti4gf13`, `x8k2v0qa` and `running1`; my-team/audio."""
    for i, (run_id, lr) in enumerate({"3ti4gf13": 0.01, "x8k2v0qa": 0.05, "running1": 0.1}.items()):
        rows: list[dict[str, Any]] = [{"loss": 1 / (1 + step * lr), "_timestamp": 1.7e9 + step} for step in range(200)]
        for step in range(0, 200, 5):
            rows[step]["val/loss"] = 1.5 / (1 + step * lr)
        server.add_run(
            "my-team", "vision", run_id, rows, config={"lr": lr, "depth": 2 + i, "seed": 1},
            summary=rows[-5],
            created_at=AT + timedelta(days=i), display_name=f"run {i}", tags=["best"] if i == 0 else [],
            state="running" if run_id == "running1" else "finished", console=[f"epoch {n}" for n in range(7)],
            files={"media/images/val/x.png": PIXEL, "media/images/y.png": PIXEL, "config.yaml": b"lr: 0.01\n"},
            events=[{"_timestamp": 1.7e9, "_runtime": 0.0, "system.cpu": 12.5}],
        )  # fmt: skip
    server.add_run("my-team", "audio", "a1", {"loss": [1.0, 0.5]}, created_at=AT)


class Sandbox:
    """A folder with `home/experiments` (the demo's runs), a synced cache, and `wandbsync` on the path."""

    def __init__(self, template: Path, server: Server) -> None:
        self.template, self.server = template, server
        (template / "bin").mkdir(parents=True)
        for name, words in {"wandbsync": "-m wandbsync", "python": ""}.items():
            script = template / "bin" / name
            script.write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
            script.chmod(0o755)
        home = template / "home"
        home.mkdir()
        self.run("wandbsync --cache-dir unused demo --output experiments", template, cwd=home)
        shutil.rmtree(home / "unused", ignore_errors=True)
        self.run(
            "wandbsync sync --local experiments && wandbsync sync my-team/vision my-team/audio", template, cwd=home
        )

    def env(self, place: Path) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "XDG"))}
        path = f"{place / 'bin'}{os.pathsep}{clean.get('PATH', '')}"
        found = {
            "PATH": path,
            "HOME": str(place / "home"),
            "WANDBSYNC_CACHE_DIR": str(place / "cache"),
            "COLUMNS": "200",
        }
        found["PYTHONPATH"] = os.pathsep.join([str(ROOT), clean.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        return clean | self.server.env | found | {"MPLBACKEND": "agg"}

    def run(self, script: str, place: Path, *, cwd: Path | None = None, python: bool = False) -> Any:
        """Run a script in a place; the finished process."""
        words = (
            [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c"]
            if python
            else ["bash", "-euo", "pipefail", "-c"]
        )
        done = subprocess.run(
            [*words, script],
            cwd=cwd or place / "home",
            env=self.env(place),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode in (0, *EXPECTED.get(script, ())), (script, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    @contextmanager
    def daemon(self, place: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A daemon that is at work; it is stopped at the end if it still is."""
        quiet = subprocess.DEVNULL
        command = [str(place / "bin/wandbsync"), "daemon", "run"]
        process = subprocess.Popen(command, env=self.env(place), cwd=place / "home", stdout=quiet, stderr=quiet)
        try:
            deadline = time.monotonic() + 60
            while '"next_probe_at"' not in self.run("wandbsync status --json || true", place).stdout:  # of its server
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.2)
            yield process
        finally:
            if process.poll() is None:
                self.run("wandbsync daemon stop", place)
            process.wait(30)

    def copy(self, to: Path) -> Path:
        """A place of its own."""
        shutil.copytree(self.template, to, symlinks=True)
        return to


EXPECTED = {"wandbsync daemon reload": (2,)}  # there is none
