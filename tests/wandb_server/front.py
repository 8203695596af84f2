"""The HTTP face: routes, Basic auth, faults, limits, and a log of every request."""

from __future__ import annotations

import base64
import gzip
import io
import json
import socket
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from . import execution, filestream
from .faults import HTML, Fault
from .history import Row

if TYPE_CHECKING:
    from . import Server


@dataclass(frozen=True)
class Request:
    """One request that was answered, or whose connection was reset (status 0)."""

    operation: str
    method: str
    path: str
    status: int
    variables: Mapping[str, Any]
    headers: Message
    bytes_in: int
    bytes_out: int
    began: float
    seconds: float


@dataclass
class Answer:
    """What goes back: JSON unless the body is bytes already."""

    status: int
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, server: Server, port: int = 0) -> None:
        self.wandb = server
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the client went away: its own affair
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _serve(self) -> None:
        began = time.time()
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw
        path = urlsplit(self.path).path
        operation, payload = self._operation(path, body)
        variables = _with_run(payload.get("variables") or {})
        fault = self.server.wandb.faults.take(operation, variables) or Fault(operation)
        time.sleep(self.server.wandb.latency + fault.latency)
        if fault.reset == "before":
            answer = Answer(0)
        elif fault.status:
            kind = "text/html" if fault.body == HTML else "application/json"
            answer = Answer(fault.status, fault.body, {"Content-Type": kind, **fault.headers})
        else:
            answer = self._answer(operation, path, payload, body)
            answer = Answer(0) if fault.reset == "after" else answer
        data = answer.data
        if answer.status == 200 and self.server.wandb.gzip and "gzip" in self.headers.get("Accept-Encoding", ""):
            data, answer.headers["Content-Encoding"] = gzip.compress(data, 1), "gzip"
        sent = b"" if self.command == "HEAD" else data[: fault.truncate]
        self.server.wandb.requests.append(
            Request(operation, self.command, self.path, answer.status, variables,
                    self.headers, len(raw), len(sent), began, time.time() - began)
        )  # fmt: skip
        if not answer.status:
            self._reset()
        else:
            self._send(answer, data, sent, fault.drip)

    def _operation(self, path: str, body: bytes) -> tuple[str, Row]:
        """The name under which a request is counted and made to fail, and its JSON if it is GraphQL."""
        if path == "/graphql":
            try:
                payload = json.loads(body)
            except ValueError:
                payload = {}
            return execution.operation_name(payload), payload
        if path.startswith("/storage/exports/"):
            return "export", {}
        if path.startswith("/storage/"):
            return "upload" if self.command == "PUT" else "download", {}
        return ("file_stream" if path.endswith("/file_stream") else "file"), {}

    def _answer(self, operation: str, path: str, payload: Row, body: bytes) -> Answer:
        if path.startswith("/storage/"):
            return self._storage(path, body)
        signed_in = self._authorized()
        if not signed_in and (path != "/graphql" or self.server.wandb.refuses_keys):
            return Answer(401, {"errors": [{"message": "user is not logged in"}]})
        allowed, headers = self.server.wandb.take_token(operation)
        if not allowed:
            return Answer(429, {"error": "rate limit exceeded"}, headers)
        if path == "/graphql":
            answered = execution.execute(self.server.wandb.root, payload, anonymous=not signed_in)
            status, result = self.server.wandb.twist(payload, *answered)
            if isinstance(result, bytes):
                headers = headers | {"Content-Type": "text/html"}
            return Answer(status, result, headers)
        return self._files(path, body, headers)

    def _authorized(self) -> bool:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        expected = base64.b64encode(f"api:{self.server.wandb.key}".encode()).decode()
        return scheme.lower() == "basic" and token == expected

    def _files(self, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """`/files/ENTITY/PROJECT/RUN/...`: the file stream, or a file by its lasting address."""
        server = self.server.wandb
        kind, *names = (unquote(part) for part in path.removeprefix("/").split("/", 4))
        run = server.store.run(*names[:3]) if kind == "files" and len(names) == 4 else None
        if not run:
            return Answer(404, {"error": f"no run at {path}"}, headers)
        if self.command == "POST" and names[3] == "file_stream":
            with server.store.lock:
                return Answer(200, filestream.receive(run, json.loads(body)), headers)
        if names[3] not in run.files:
            return Answer(404, {"error": "file not found"}, headers)
        return Answer(307, b"", headers | {"Location": server.signer.url("files", *names)})

    def _storage(self, path: str, body: bytes) -> Answer:
        """Signed URLs, as object stores have them: XML errors, ranges, no key asked for."""
        server = self.server.wandb
        kind, *names = (unquote(part) for part in path.removeprefix("/storage/").split("/", 4))
        if not server.signer.accepts(self.command, self.path):
            return _xml(403, "AccessDenied", "Request has expired")
        if kind == "artifacts":
            return Answer(200)
        run = server.store.run(*names[:3])
        if run and self.command == "PUT":
            with server.store.lock:
                file = run.put(names[3], body)
            return Answer(200, b"", {"ETag": file.md5})
        if run and kind == "files" and names[3] in run.files:
            return self._ranged(run.files[names[3]].data, run.files[names[3]].mimetype)
        export = next((export for export in run.exports if export.name == names[3]), None) if run else None
        if not export:
            return _xml(404, "NoSuchKey", "The specified key does not exist.")
        return self._ranged(export.data, "application/octet-stream")

    def _ranged(self, data: bytes, kind: str) -> Answer:
        headers = {"Content-Type": kind or "application/octet-stream", "Accept-Ranges": "bytes"}
        unit, _, span = self.headers.get("Range", "").partition("=")
        if unit != "bytes" or "," in span:
            return Answer(200, data, headers)
        low, _, high = span.partition("-")
        start = int(low) if low else max(0, len(data) - int(high))
        stop = min(int(high) + 1 if low and high else len(data), len(data))
        if start >= stop:
            return Answer(416, b"", headers | {"Content-Range": f"bytes */{len(data)}"})
        return Answer(206, data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    def _send(self, answer: Answer, data: bytes, sent: bytes, drip: float) -> None:
        headers = {"Content-Type": "application/json", **answer.headers, "Content-Length": str(len(data))}
        if len(sent) < len(data) and self.command != "HEAD":
            headers["Connection"] = "close"
        # In one write: a head and a body apart would meet Nagle's algorithm and delayed ACKs.
        stream, self.wfile = self.wfile, io.BytesIO()
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        head, self.wfile = self.wfile.getvalue(), stream
        if not drip:
            self.wfile.write(head + sent)
            return
        self.wfile.write(head)
        for i in range(len(sent)):
            self.wfile.write(sent[i : i + 1])
            time.sleep(drip)

    def _reset(self) -> None:
        """End the connection with RST, as a dying proxy does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def _with_run(variables: Row) -> Row:
    """The variables of a question about a run with its id as `run`, whatever the question calls it."""
    found = next((variables[name] for name in ("run", "runName", "name") if variables.get(name)), None)
    return variables if found is None else {**variables, "run": found}


def _xml(status: int, code: str, message: str) -> Answer:
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})
