"""How the daemon is, as Prometheus reads it: plain text on a port of this machine, if the config asks for it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .. import status
from ..errors import WandbsyncError
from ..status import Snapshot
from ..terminal import printable

MOST = 32  # connections at once: each costs a thread and a descriptor of a daemon that must not run out of them
PATIENCE = 5.0  # seconds for a request to come and its answer to be taken, all in all


def text(snapshot: Snapshot, *, now: float) -> str:
    """The status in Prometheus' text format."""
    return "".join(f"{line}\n" for line in _lines(snapshot, now))


def _lines(snapshot: Snapshot, now: float) -> Iterator[str]:
    word = status.verdict(snapshot, alive=True, now=now).word
    yield from _family("up", "gauge", "whether the verdict is ok", [({}, float(word == "ok"))])
    words = [({"verdict": one}, float(one == word)) for one in status.EXIT_CODES]
    yield from _family("verdict", "gauge", "what wandbsync status says", words)
    ages = [
        ({"kind": one.kind, "source": one.location}, now - one.fresh_at)
        for one in snapshot.sources
        if one.fresh_at is not None
    ]
    yield from _family("source_age_seconds", "gauge", "since a source was last synced to its end", ages)
    failures = [({"kind": one.kind, "source": one.location}, float(one.failures)) for one in snapshot.sources]
    yield from _family("source_failures", "gauge", "failures of a source in a row", failures)
    running = [({"kind": one.kind, "source": one.location}, float(one.running)) for one in snapshot.sources]
    yield from _family("source_running", "gauge", "runs of a source that go on", running)
    lags = [({"run": one.run}, one.lag) for one in snapshot.live]
    yield from _family("live_lag_seconds", "gauge", "from the last write to a log to its commit", lags)
    times = [({"job": job.name}, float(job.times)) for job in snapshot.jobs]
    yield from _family("job_runs_total", "counter", "times a job was done", times)
    server = snapshot.server
    if server is not None:
        yield from _family("server_requests_total", "counter", "requests sent", [({}, float(server.requests))])
        yield from _family("server_bytes_total", "counter", "bytes received", [({}, float(server.bytes))])
        yield from _family("server_waited_seconds_total", "counter", "waited for the rate limit", [({}, server.waited)])
        yield from _family("server_reachable", "gauge", "whether it answers", [({}, float(server.reachable is True))])


def _family(name: str, kind: str, meaning: str, samples: list[tuple[dict[str, str], float]]) -> Iterator[str]:
    if samples:
        yield f"# HELP wandbsync_{name} {meaning}"
        yield f"# TYPE wandbsync_{name} {kind}"
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"wandbsync_{name}{{{inside}}} {value:.15g}" if inside else f"wandbsync_{name} {value:.15g}"


def _escaped(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')


def check(port: int) -> None:
    """Raises WandbsyncError if the port is taken."""
    _listening(port, BaseHTTPRequestHandler).server_close()


def _listening(port: int, handler: type[BaseHTTPRequestHandler]) -> _Listener:
    try:
        return _Listener(("127.0.0.1", port), handler)
    except OSError as error:
        text = f"cannot listen on port {port}: {error.strerror}"
        raise WandbsyncError(text, hint="choose another daemon.metrics_port") from error


class _Listener(ThreadingHTTPServer):
    """Takes MOST connections at a time, each for PATIENCE; who comes beyond that is let go at once."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(MOST)
        super().__init__(address, handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return self._free.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # Not a timeout of each read: who sends a byte now and then would stay for ever.
        end = threading.Timer(PATIENCE, _hang_up, [request])
        end.daemon = True
        end.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody hung up, or was hung up on: nothing that anybody needs to read."""


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class Port:
    """Answers GET /metrics on 127.0.0.1."""

    def __init__(self, port: int, snapshot: Callable[[], Snapshot], clock: Callable[[], float]) -> None:
        """Raises WandbsyncError if the port is taken."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.split("?")[0] != "/metrics":
                    self.send_error(404)
                    return
                body = text(snapshot(), now=clock()).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = _listening(port, Handler)
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
