"""What several test files share: caches, servers and lakes of their own; runs of the real SDK, once per session."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from mirror import DEMO, Mirror
from s3_server import s3
from shell import without_wandb
from wandb_server import Server

from wandbsync.cache import Cache

# Here every run looks at other examples; CI looks at the same ones each time, so that a failure is the change's own.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

SCRIPT = Path(__file__).with_name("sdkrun.py")


def sdk_process(scenario: str, folder: Path) -> subprocess.Popen[bytes]:
    """A training job of its own (and its own process group), which writes its run below `folder`."""
    env = without_wandb() | {"HOME": str(folder)}
    env |= {"WANDB_SILENT": "true", "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL": "0.1"}
    command = [sys.executable, str(SCRIPT), scenario, str(folder)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("wb") as out:
        return subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)


@pytest.fixture(scope="session")
def sdk_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder in which a scenario of sdkrun.py has left its runs; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def runs(scenario: str) -> Path:
        folder = shared / f"sdk-{scenario}"
        with (shared / f"sdk-{scenario}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of all workers, the first to come writes it
            if not folder.exists():
                code = sdk_process(scenario, folder).wait(60)
                expected = {"failed": 1, "killed": -9}.get(scenario, 0)
                assert code == expected, (code, (folder / "output.txt").read_text())
        return folder

    return runs


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with Cache(tmp_path / "cache") as one:
        yield one


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A folder for local runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    """With the empty project me/demo."""
    with Server() as one:
        one.add_project(*DEMO)
        yield one


@pytest.fixture
def mirror(tmp_path: Path, server: Server) -> Iterator[Mirror]:
    """A cache of that server, where nothing is yet."""
    one = Mirror(tmp_path / "cache", server)
    yield one
    one.close()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """A server of the kind of S3, with the bucket `lab`."""
    pytest.importorskip("moto")
    with s3("lab") as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place for a lake: a folder, and a bucket of an S3-compatible server."""
    if request.param == "folder":
        return str(tmp_path / "lake")
    server = request.getfixturevalue("bucket")
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return f"s3://lab/{tmp_path.name}"
