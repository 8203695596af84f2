"""The test server in a process of its own, so that its interpreter lock is not ours.

One line of JSON asks, one answers: ["call", {arguments}] -> result. The calls are the methods of `Calls`.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
from wandb_server import Server
from wandb_server.faults import Fault, Faults

LONG_AGO = datetime(2024, 1, 1, tzinfo=timezone.utc)


class Child:
    """A process that answers calls, until the `with` block ends."""

    def __init__(self, script: str, env: dict[str, str] | None = None) -> None:
        self._command, self._env = [sys.executable, script], env

    def __enter__(self) -> Any:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=self._env,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)

    def __call__(self, name: str, **arguments: Any) -> Any:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([name, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._command[1]} ended in {name}({arguments})")
        return json.loads(answer)


def answer(calls: Any) -> None:
    """Be a Child: answer calls from stdin, until that ends."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(getattr(calls, name)(**arguments)), file=out, flush=True)


class Storm(Faults):
    """Every third request of GraphQL is refused for a while."""

    def __init__(self, seconds: float, headers: dict[str, str]) -> None:
        super().__init__()
        self._until, self._headers = time.monotonic() + seconds, headers
        self._number, self._mutex = itertools.count(1), threading.Lock()

    def take(self, operation: str, *_: Any) -> Fault | None:
        if operation in ("export", "download") or time.monotonic() > self._until:
            return None
        with self._mutex:
            refused = next(self._number) % 3 == 0
        return Fault(operation, status=429, headers=self._headers) if refused else None


class Calls:
    def __init__(self, server: Server) -> None:
        self.server, self._faults, self._spent = server, server.faults, 0.0
        self._limit: Any = None

    def env(self) -> dict[str, str]:
        return self.server.env

    def fill(self, project: str, *, runs: int, rows: int, metrics: int, files: int = 1) -> None:
        """Finished runs, their histories exported."""
        rng = np.random.default_rng(0)
        columns: dict[str, Any] = {f"metric_{i}": rng.normal(size=rows) for i in range(metrics)}
        columns |= {"_timestamp": 1.7e9 + np.arange(rows) * 0.5, "_runtime": np.arange(rows) * 0.5}
        for i in range(runs):
            created = LONG_AGO + timedelta(seconds=i)
            config = {"lr": 0.1, "depth": i}
            run = self.server.add_run("me", project, f"run{i:05}", columns, created_at=created, config=config)
            if rows:
                self.server.export(run, files=files, row_group_size=1 << 17)

    def sparse(self, project: str, *, rows: int, steps: int) -> None:
        """A run that goes on, with few rows over many steps, none of them exported."""
        rng = np.random.default_rng(0)
        at = np.sort(rng.choice(steps, rows, replace=False))
        columns = {"_step": at, "_timestamp": 1.7e9 + at, "loss": rng.normal(size=rows)}
        self.server.add_run("me", project, "run00000", columns, state="running")

    def storm(self, *, seconds: float, retry_after: float | None) -> None:
        headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
        self.server.faults = Storm(seconds, headers)

    def limit(self, *, rate: float, burst: int, retry_after: bool) -> None:
        """A rate limit that is said in headers."""
        self._limit = self.server.limit(rate=rate, burst=burst, retry_after=retry_after)

    def calm(self) -> None:
        self.server.faults = self._faults
        self.server.calm()

    def reset(self) -> None:
        """Count from here."""
        self.server.reset_counts()
        self._spent = time.process_time()

    def counts(self) -> dict[str, Any]:
        """Since `reset`: requests by operation, how many were refused, and seconds of this process's time."""
        requests = list(self.server.requests)
        return {
            "requests": {name: count.requests for name, count in self.server.counts.items()},
            "refused": sum(request.status == 429 for request in requests),
            "asked": sum(request.path == "/graphql" for request in requests),
            "seconds": time.process_time() - self._spent,
        }


if __name__ == "__main__":
    with Server() as server:
        answer(Calls(server))
