"""What several test files share: runs written by the real SDK, each scenario once per session."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# Here every run looks at other examples; CI looks at the same ones each time, so that a failure is the change's own.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")

SCRIPT = Path(__file__).with_name("sdkrun.py")


def sdk_process(scenario: str, folder: Path) -> subprocess.Popen[bytes]:
    """A training job of its own (and its own process group), which writes its run below `folder`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    env |= {"WANDB_SILENT": "true", "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL": "0.1", "HOME": str(folder)}
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
