"""An S3-compatible server on this machine: moto, with the one promise it lacks, that conditional puts are atomic.

python s3_server.py BUCKET     prints its address, and serves until it is killed
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Server:
    """Notes what it is asked; methods in `denied` are refused."""

    def __init__(self, bucket: str) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Quiet(WSGIRequestHandler):
            protocol_version = "HTTP/1.1"

            def log(self, *_: Any) -> None:
                pass

        app = DomainDispatcherApplication(create_backend_app)
        one_at_a_time = threading.Lock()  # moto looks whether an object is there, then puts it: not at once
        self.asked: list[tuple[str, str]] = []

        self.denied: set[str] = set()

        def serve(environ: Any, start: Any) -> Any:
            deletes = environ["REQUEST_METHOD"] == "POST" and environ["QUERY_STRING"].startswith("delete")
            if ("DELETE" if deletes else environ["REQUEST_METHOD"]) in self.denied:
                start("403 Forbidden", [("Content-Length", "0")])
                return [b""]
            self.asked.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
            if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
                return app(environ, start)
            with one_at_a_time:
                return app(environ, start)

        self.server = make_server("127.0.0.1", 0, serve, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self.server.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.bucket = bucket
        self._make()

    def _make(self) -> None:
        import http.client

        con = http.client.HTTPConnection("127.0.0.1", self.server.port)
        con.request(
            "PUT",
            f"/{self.bucket}",
            headers={"Authorization": "AWS4-HMAC-SHA256 Credential=t/20260101/us-east-1/s3/aws4_request"},
        )
        assert con.getresponse().status == 200
        con.close()

    @property
    def env(self) -> dict[str, str]:
        """What a client needs in its environment, and all it needs."""
        return {
            "AWS_ACCESS_KEY_ID": "t",
            "AWS_SECRET_ACCESS_KEY": "t",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@contextmanager
def s3(bucket: str) -> Iterator[Server]:
    server = Server(bucket)
    try:
        yield server
    finally:
        server.close()


if __name__ == "__main__":
    with s3(sys.argv[1]) as running:
        print(running.url, flush=True)
        running.thread.join()
    os._exit(0)
