"""A W&B-compatible server for tests: the unmodified SDK writes to it and reads from it, over real sockets.

    with Server() as server:
        run = server.add_run("me", "demo", "abc123", rows={"loss": losses}, exported=600)
        subprocess.run([...], env=os.environ | server.env)
        server.fail("RunParquetHistory", status=429, retry_after=1, times=2)

What it holds is in `store`, how GraphQL sees it in `schema.graphql` and `views`, what goes wrong in `faults`.
"""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from . import exports
from .faults import HTML, Fault, Faults, RateLimit
from .front import Listener, Request
from .history import History, Row, Rows
from .root import Root
from .signing import Signer
from .store import Clock, File, LogLine, Project, Run, Store

__all__ = ["HTML", "Clock", "Count", "Fault", "File", "History", "LogLine", "Project", "Request", "Run", "Server"]


@dataclasses.dataclass
class Count:
    """What was asked under one operation's name."""

    requests: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Server:
    """A server at `url` for the user `me` with `key`; ends with the `with` block.

    Switches: `latency` of every request, `gzip` of answers, `key` (change it and the old one is void: whoever has it
    is nobody, HTTP 200 and `viewer: null`; with `refuses_keys` it is 401, as servers that are no cloud answer),
    `history_serves_exported`, `features`; `root.hidden_pages`, `root.stuck`, `root.most_records`, `root.lacks`;
    `twist`, which is given each GraphQL request, the status and the body of its answer, and says what is answered
    instead.
    """

    def __init__(
        self, *, username: str = "me", teams: Iterable[str] = ("some-team",), url_lifetime: float = 3600
    ) -> None:
        self.key = "0123456789abcdef" * 2 + "01234567"
        self.latency, self.gzip, self.refuses_keys = 0.0, False, False
        self.twist: Callable[[Any, int, Any], tuple[int, Any]] = lambda payload, status, body: (status, body)
        self.clock = Clock()
        self.store = Store(self.clock, username, {username, *teams})
        self.faults = Faults()
        self.requests: list[Request] = []
        self._limits: list[RateLimit] = []
        self._listener = Listener(self)
        port = self._listener.server_address[1]
        self.url = f"http://127.0.0.1:{port}"
        # Signed URLs are on another host than the API, as they are in life: a key sent there has leaked.
        self.signer = Signer(f"http://localhost:{port}", self.clock, url_lifetime)
        self.root = Root(self.store, self.signer, self.url)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to find this server."""
        quiet = {"WANDB_ERROR_REPORTING": "false", "NO_PROXY": "127.0.0.1,localhost"}
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": self.key} | quiet

    def env_in(self, folder: Path) -> dict[str, str]:
        """The same, with everything the SDK leaves behind kept below a folder."""
        places = ("HOME", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR")
        return self.env | dict.fromkeys(places, str(folder))

    @property
    def history_serves_exported(self) -> bool:
        """Whether pages of `history` also hold the rows that are exported."""
        return self.root.history_serves_exported

    @history_serves_exported.setter
    def history_serves_exported(self, value: bool) -> None:
        self.root.history_serves_exported = value

    @property
    def features(self) -> set[str]:
        """The names of the server features that are on; may be changed in place."""
        return self.root.features

    # Seeding

    def add_project(self, entity: str, project: str) -> Project:
        with self.store.lock:
            self.store.entities.add(entity)
            found = self.store.project(entity, project, create=True)
        assert found
        return found

    def add_run(
        self,
        entity: str,
        project: str,
        run_id: str,
        rows: Rows | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        summary: Mapping[str, Any] | None = None,
        state: str = "finished",
        created_at: datetime | None = None,
        heartbeat_at: datetime | None = None,
        events: Iterable[Row] = (),
        console: Iterable[str | LogLine] = (),
        files: Mapping[str, bytes] | None = None,
        exported: int | None = None,
        **fields: Any,
    ) -> Run:
        """Make a run without the SDK: rows as dicts, columns or an Arrow table; the first `exported` lines as Parquet.

        `config` is plain here, wrapped as the server has it afterwards; the summary is the last row unless given.
        Further fields are those of Run: display_name, tags, notes, group, job_type, ...
        """
        history = History(rows)
        if summary is None:
            summary = history.last_row
        created = created_at or self.clock.now()
        if heartbeat_at is None:
            heartbeat_at = self.clock.now() if state == "running" else created + timedelta(seconds=len(history))
        with self.store.lock:
            run = self.store.create(
                self.add_project(entity, project),
                run_id,
                created_at=created,
                heartbeat_at=heartbeat_at,
                declared=state,
                config={key: {"value": value} for key, value in (config or {}).items()},
                summary=dict(summary),
                history=history,
                events=list(events),
                console=[one if isinstance(one, LogLine) else LogLine(i, one) for i, one in enumerate(console)],
                **fields,
            )
            for name, data in (files or {}).items():
                run.put(name, data)
            if exported:
                exports.export(run, int(history.steps[exported - 1]))
        return run

    # Controls

    def grow(self, run: Run, rows: Rows) -> None:
        """Log more rows, as a running process would; the run's state stays what it is."""
        with self.store.lock:
            run.history.append(rows)
            run.summary |= run.history.last_row
            run.beat()
            self.store.changes += 1

    def finish(self, run: Run, state: str = "finished") -> None:
        self.edit(run, declared=state)
        run.beat()

    def edit(self, run: Run, **fields: Any) -> None:
        """Change fields of a run without moving its heartbeat, as somebody in the web page does."""
        with self.store.lock:
            for name, value in fields.items():
                setattr(run, name, value)
            self.store.changes += 1

    def rewind(self, run: Run, step: int) -> None:
        """Forget all rows after a step."""
        with self.store.lock:
            run.rewind(step)
            run.beat()
            self.store.changes += 1

    def delete(self, run: Run) -> None:
        with self.store.lock:
            self.store.delete(run)

    def recreate(self, run: Run, rows: Rows | None = None, **fields: Any) -> Run:
        """Delete a run and make another under its id, created later."""
        self.delete(run)
        fields = {"created_at": max(self.clock.now(), run.created_at + timedelta(seconds=1)), **fields}
        return self.add_run(run.project.entity, run.project.name, run.name, rows, **fields)

    def export(self, run: Run, upto_step: int | None = None, **how: Any) -> None:
        """Export the rows up to a step: `files=3, shuffle=True, append=True, ...` as in `exports.export`."""
        with self.store.lock:
            exports.export(run, upto_step, **how)

    def run(self, entity: str, project: str, run_id: str) -> Run:
        """A run, also one that the SDK wrote; KeyError if there is none."""
        return self.store.projects[entity, project].runs[run_id]

    # Faults and counts

    def fail(self, operation: str, *, retry_after: float | None = None, **how: Any) -> Fault:
        """Make an operation misbehave (names may have wildcards); see `faults.Fault`."""
        headers = dict(how.pop("headers", {}))
        if retry_after is not None:
            headers["Retry-After"] = f"{retry_after:g}"
        return self.faults.add(Fault(operation, headers=headers, **how))

    def limit(self, operation: str = "*", *, rate: float, burst: int, retry_after: bool = True) -> RateLimit:
        """Limit the rate of operations for real, and say so in RateLimit headers."""
        limit = RateLimit(operation, rate, burst, retry_after=retry_after)
        self._limits.append(limit)
        return limit

    def poison(self, run: Run, *parts: str) -> None:
        """Make `history` or `summary` of a run a 500, for good."""
        run.poisoned |= set(parts or ("history",))

    def block_storage(self) -> None:
        """Sign addresses of a storage that nobody listens at; all rows can be had by pages of the API."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.signer.base = f"http://localhost:{free.getsockname()[1]}"
        self.history_serves_exported = True

    def calm(self) -> None:
        """No more faults, limits and latency."""
        self.faults.clear()
        self._limits.clear()
        self.latency = 0.0

    def take_token(self, operation: str) -> tuple[bool, dict[str, str]]:
        headers: dict[str, str] = {}
        for limit in self._limits:
            if limit.covers(operation):
                allowed, headers = limit.take()
                if not allowed:
                    return False, headers
        return True, headers

    def expire_urls(self) -> None:
        """Void all signed URLs handed out so far."""
        self.signer.expire_all()

    def reset_counts(self) -> None:
        self.requests.clear()

    @property
    def counts(self) -> dict[str, Count]:
        """Requests and bytes of bodies per operation since the last reset."""
        counts: dict[str, Count] = {}
        for request in list(self.requests):
            count = counts.setdefault(request.operation, Count())
            count.requests += 1
            count.bytes_in += request.bytes_in
            count.bytes_out += request.bytes_out
        return counts
