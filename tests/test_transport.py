"""Requests against our W&B-compatible server, and against worse: what arrives, what is tried again, what is told."""

from __future__ import annotations

import base64
import contextlib
import gzip
import itertools
import json
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from wandb_server import HTML, Server

from wandbsync.errors import (
    CacheError,
    ExpiredURL,
    NoRoom,
    NotPermitted,
    NotSignedIn,
    RateLimited,
    ServerError,
    Stopped,
    TimedOut,
    Unreachable,
    UsageError,
    WandbsyncError,
)
from wandbsync.sources.api import budget as budget_module
from wandbsync.sources.api.budget import Budget
from wandbsync.sources.api.credentials import Login
from wandbsync.sources.api.network import Network
from wandbsync.sources.api.transport import Transport

KEY = "0123456789abcdef" * 2 + "01234567"  # the test server's
BASIC = base64.b64encode(f"api:{KEY}".encode()).decode()
VIEWER = "query Viewer { viewer { username } }"
ME = {"viewer": {"username": "me"}}
FILE = bytes(range(256)) * 1000
# Made with `openssl ca -selfsign`; all with one key, which protects nothing. They differ in when they are valid.
TLS = Path(__file__).with_name("tls")


class Clock:
    """Time passes with every sleep, and only then."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


Make = Callable[..., Transport]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        server.add_run("me", "p", "r", {"loss": [1.0, 2.0]}, exported=2, files={"media/a.bin": FILE, "page.html": HTML})
        yield server


@pytest.fixture
def make() -> Iterator[Make]:
    """Transports, closed in the end; on a clock of their own unless they get a budget."""
    made: list[Transport] = []

    def transport(url: str, *, budget: Budget | None = None, key: str = KEY, **how: Any) -> Transport:
        clock = Clock()
        budget = budget or Budget(clock=clock, sleep=clock.sleep, jitter=random.Random(1))
        made.append(Transport(Login(url, key, network=how.pop("network", Network())), budget, **how))
        return made[-1]

    yield transport
    for each in made:
        each.close()


@pytest.fixture
def transport(server: Server, make: Make) -> Transport:
    return make(server.url)


def viewer(transport: Transport, project: str = "") -> dict[str, Any]:
    return transport.ask("Viewer", VIEWER, {}, project=project)


def signed(server: Server, name: str = "media/a.bin") -> str:
    return server.signer.url("files", "me", "p", "r", name)


def fails(kind: type[WandbsyncError], call: Callable[[], object]) -> Any:
    """The error of exactly this class that a call ends with: one line, a hint, no secret anywhere in or behind it."""
    with pytest.raises(WandbsyncError) as caught:
        call()
    assert type(caught.value) is kind
    check(caught.value)
    return caught.value


def check(error: WandbsyncError) -> None:
    assert error.hint, error
    assert "\n" not in str(error) and len(error.line()) < 500
    waiting: list[Any] = [error]
    while waiting:
        seen = waiting.pop()
        texts = [str(seen), repr(seen), *map(str, seen.args), *map(str, vars(seen).values())]
        for secret in (KEY, BASIC, "signature", "hunter2"):
            assert not any(secret in text for text in texts), (secret, texts)
        waiting += [each for each in (seen.__cause__, seen.__context__) if each is not None]


def slept(transport: Transport) -> list[float]:
    clock = transport.budget.clock
    assert isinstance(clock, Clock)
    return clock.slept


# Asking


def test_data_comes_back(server: Server, transport: Transport) -> None:
    query = "query Named($e: String!) { models(entityName: $e) { edges { node { name } } } }"
    found = transport.ask("Named", query, {"e": "me"}, project="me/p")
    assert found == {"models": {"edges": [{"node": {"name": "p"}}]}}
    assert transport.requests == 1
    assert transport.bytes == server.counts["Named"].bytes_out > 0
    (request,) = server.requests
    assert request.variables == {"e": "me"}
    assert request.headers["Authorization"] == f"Basic {BASIC}"
    assert request.headers["User-Agent"].startswith("wandbsync/")
    assert slept(transport) == []


def test_answers_may_be_compressed(server: Server, transport: Transport) -> None:
    server.gzip = True
    query = "query Q { viewer { username teams { edges { node { name } } } } }"
    found = transport.ask("Q", query, {})
    assert found["viewer"]["teams"]["edges"][0]["node"]["name"]
    assert server.requests[0].headers["Accept-Encoding"] == "gzip"
    assert transport.bytes == len(gzip.compress(json.dumps({"data": found}).encode(), 1))


def test_connections_are_kept(server: Server, transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    connects = []
    original = socket.socket.connect
    monkeypatch.setattr(
        socket.socket, "connect", lambda self, address: (connects.append(address), original(self, address))
    )
    for _ in range(5):
        viewer(transport)
    assert len(connects) == 1


PASSING: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "502 with a web page": {"status": 502, "body": HTML},
    "503": {"status": 503, "body": b""},
    "504": {"status": 504, "body": b"upstream request timeout"},
    "408": {"status": 408},
    "425": {"status": 425},
    "429": {"status": 429},
    "429 with a web page": {"status": 429, "body": HTML},
    "429 with Retry-After": {"status": 429, "retry_after": 7},
    "reset before": {"reset": "before"},
    "reset after": {"reset": "after"},
    "cut short": {"truncate": 11},
    "nothing but a head": {"truncate": 0},
}


@pytest.mark.parametrize("how", PASSING)
def test_what_passes_is_tried_again(how: str, server: Server, transport: Transport) -> None:
    fault = server.fail("Viewer", times=3, **PASSING[how])
    assert viewer(transport) == ME
    assert (fault.hits, transport.requests) == (3, 4)
    assert len(slept(transport)) >= 3
    if "Retry-After" in how:
        assert sum(slept(transport)) >= 21
        assert transport.budget.waited >= 21
    else:
        assert sum(slept(transport)) >= 0.25 + 0.5 + 1
    if "429" not in how:
        assert transport.budget.waited == 0


def test_a_compressed_answer_that_is_cut_short(server: Server, transport: Transport) -> None:
    server.gzip = True
    server.fail("Viewer", truncate=25, times=2)
    assert viewer(transport) == ME
    assert transport.requests == 3


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize("body", [b"{}", HTML])
def test_in_the_end_it_is_told(status: int, body: bytes, server: Server, make: Make) -> None:
    transport = make(server.url, attempts=5)
    server.fail("Viewer", times=None, status=status, body=body)
    error = fails(ServerError, lambda: viewer(transport))
    assert (error.status, transport.requests) == (status, 5)
    assert transport.login.host in str(error) and str(status) in str(error)
    assert ("login page" in error.hint) == (body == HTML)


def test_patience_ends_before_the_attempts(server: Server, make: Make) -> None:
    transport = make(server.url, attempts=1000, patience=100)
    server.fail("Viewer", times=None, status=500)
    fails(ServerError, lambda: viewer(transport))
    assert 10 <= sum(slept(transport)) <= 100


def test_refusals_are_not_counted_as_attempts(server: Server, make: Make) -> None:
    transport = make(server.url, attempts=2)
    server.fail("Viewer", times=50, status=429, retry_after=3)
    assert viewer(transport) == ME
    assert 150 <= sum(slept(transport)) <= 250


def test_refusals_for_ever_end_with_the_patience(server: Server, make: Make) -> None:
    transport = make(server.url, patience=100)
    server.fail("Viewer", times=None, status=429, retry_after=30)
    error = fails(RateLimited, lambda: viewer(transport))
    assert isinstance(error, Unreachable)
    assert sum(slept(transport)) <= 100
    server.calm()
    transport.patience = 600
    assert viewer(transport) == ME


def test_nobody_waits_for_an_hour(server: Server, transport: Transport) -> None:
    server.fail("Viewer", status=429, retry_after=3600)
    error = fails(RateLimited, lambda: viewer(transport))
    assert "60 min" in str(error)
    assert slept(transport) == []
    fails(RateLimited, lambda: viewer(transport))  # those who come later are not even sent
    assert transport.requests == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [(HTML, "a web page"), (b"", "something else"), (b'{"data": {"vie', "something else"), (b"[1]", "something else")],
)
def test_an_answer_that_is_no_json(body: bytes, says: str, server: Server, transport: Transport) -> None:
    server.fail("Viewer", times=2, status=200, body=body)
    assert viewer(transport) == ME
    server.fail("Viewer", times=None, status=200, body=body)
    error = fails(ServerError, lambda: viewer(transport))
    assert says in str(error) and "WANDB_BASE_URL" in error.hint
    assert transport.requests == 6


def test_a_server_that_is_slow(server: Server, make: Make) -> None:
    server.fail("Viewer", latency=0.5)
    transport = make(server.url, timeout=(5, 0.3))
    assert viewer(transport) == ME
    assert transport.requests > 1
    server.fail("Viewer", latency=0.5, times=None)
    error = fails(TimedOut, lambda: viewer(make(server.url, timeout=(5, 0.3), attempts=2)))
    assert "did not answer within 0.3 s" in str(error)


def test_a_wrong_key(server: Server, make: Make) -> None:
    server.refuses_keys = True
    transport = make(server.url, key="f" * 40)
    error = fails(NotSignedIn, lambda: viewer(transport))
    assert "f" * 40 not in error.line()
    assert server.url.removeprefix("http://") in str(error)
    assert "wandb login" in error.hint
    assert transport.requests == 1


def test_no_permission(server: Server, transport: Transport) -> None:
    server.fail("Viewer", status=403, body=b'{"errors": [{"message": "permission denied"}]}')
    error = fails(NotPermitted, lambda: viewer(transport))
    assert "permission denied" in str(error)
    assert error.exit_code == 4
    server.fail("Viewer", status=403, body=HTML)
    error = fails(ServerError, lambda: viewer(transport))
    assert "web page" in str(error)
    assert transport.requests == 2


@pytest.mark.parametrize("status", [404, 405, 413, 418, 204])
@pytest.mark.parametrize("body", [b"", HTML, b"404 page not found"])
def test_other_refusals_are_final(status: int, body: bytes, server: Server, transport: Transport) -> None:
    server.fail("Viewer", times=None, status=status, body=b"" if status == 204 else body)
    error = fails(ServerError, lambda: viewer(transport))
    assert error.status == status
    assert transport.requests == 1


def test_a_query_the_server_does_not_know(transport: Transport) -> None:
    with pytest.raises(ServerError) as caught:
        transport.ask("Viewer", "query Viewer { viewer { nonsense } }", {})
    assert any("nonsense" in message for message in caught.value.messages)
    assert (caught.value.status, caught.value.data) == (400, None)
    assert "nonsense" in str(caught.value)


def test_errors_beside_data(server: Server, transport: Transport) -> None:
    body = {"data": {"viewer": None, "x": 1}, "errors": [{"message": "no\n  viewer"}, {"nothing": 1}, "plain"]}
    server.fail("Viewer", status=200, body=json.dumps(body).encode())
    with pytest.raises(ServerError) as caught:
        viewer(transport)
    assert caught.value.messages == ("no viewer", "an error without a message", "plain")
    assert caught.value.data == body["data"]
    server.fail("Viewer", status=200, body=b'{"data": null, "errors": [{"message": "' + b"x" * 5000 + b'"}]}')
    with pytest.raises(ServerError) as caught:
        viewer(transport)
    assert len(str(caught.value)) < 400 and len(caught.value.messages[0]) == 5000
    server.fail("Viewer", status=200, body=b"{}", times=3)
    with pytest.raises(ServerError, match="neither data nor errors"):
        viewer(transport)


def test_a_server_that_quotes_the_key(server: Server, transport: Transport) -> None:
    for status in (200, 400, 403, 500):
        body = {"errors": [{"message": f"the key {KEY} as {BASIC} is bad"}]}
        server.fail("Viewer", status=status, body=json.dumps(body).encode(), times=8 if status == 500 else 1)
        with pytest.raises(WandbsyncError, match=r"the key \*\*\* as \*\*\* is bad") as caught:
            viewer(transport)
        caught.value.hint = caught.value.hint or "-"
        check(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_does_not_follow_a_redirect(status: int, server: Server, transport: Transport) -> None:
    with Server() as other:
        server.fail("Viewer", status=status, headers={"Location": f"{other.url}/graphql?signature=1"}, times=None)
        error = fails(ServerError, lambda: viewer(transport))
        assert "http://127.0.0.1" in str(error) and "WANDB_BASE_URL" in error.hint
        assert other.requests == []
    assert transport.requests == 1


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_on_the_same_server_is_followed(status: int, server: Server, transport: Transport) -> None:
    server.fail("Viewer", status=status, headers={"Location": "/graphql?again=1"}, times=2)
    viewer(transport)
    assert [request.path for request in server.requests] == ["/graphql", *["/graphql?again=1"] * 2]
    server.fail("Viewer", status=status, headers={"Location": "/graphql"}, times=None)
    assert "sends us on" in str(fails(ServerError, lambda: viewer(transport)))
    server.calm()
    server.fail("Viewer", status=status, headers={"Location": "http://[/graphql"}, times=1)
    fails(ServerError, lambda: viewer(transport))


def test_no_cookies_are_kept(make: Make) -> None:
    answer = reply(b'{"data": {}}', "Set-Cookie: a=b; Path=/")
    with Scripted(answer, answer) as server:
        transport = make(server.url)
        assert transport.ask("", "{ x }", {}) == transport.ask("", "{ x }", {}) == {}
    assert not any(b"cookie" in head.lower() for head in server.heads)


def test_a_server_below_a_path(make: Make) -> None:
    with Scripted(reply(b'{"data": {}}')) as server:
        make(f"{server.url}/wandb").ask("", "{ x }", {})
    assert server.heads[0].startswith(b"POST /wandb/graphql HTTP/1.1\r\n")


# Not even reaching the server


def test_a_name_that_nobody_has(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    transport = make("https://wandb.exmaple.com:8443")
    error = fails(Unreachable, lambda: viewer(transport))
    assert str(error) == "no host called wandb.exmaple.com can be found"
    assert "WANDB_BASE_URL" in error.hint and error.exit_code == 5
    assert transport.requests == 2 and sum(slept(transport)) < 1  # a wrong name is told at once


@pytest.fixture
def dead_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        yield taken.getsockname()[1]


def test_a_port_where_nobody_listens(make: Make, dead_port: int) -> None:
    transport = make(f"http://127.0.0.1:{dead_port}")
    error = fails(Unreachable, lambda: viewer(transport))
    assert str(error) == f"127.0.0.1:{dead_port} refuses the connection"
    assert transport.requests == 2


def test_a_server_that_went_away_is_waited_for(server: Server, make: Make) -> None:
    transport = make(server.url, attempts=5)
    assert viewer(transport) == ME
    transport.login = replace(transport.login)
    transport._api.close()
    server._listener.socket.close()
    fails(Unreachable, lambda: viewer(transport))
    assert transport.requests == 6


def test_no_way_there(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: socket.socket, address: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", connect)
    error = fails(Unreachable, lambda: viewer(make("http://127.0.0.1:9")))
    assert "no way to 127.0.0.1:9" in str(error)


def test_nobody_picks_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(self: socket.socket, address: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket.socket, "connect", connect)
    error = fails(Unreachable, lambda: viewer(make("http://127.0.0.1:9", timeout=(3, 5))))
    assert "cannot be reached within 3 s" in str(error)


def test_a_proxy_that_is_not_there(make: Make, dead_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://user:hunter2@127.0.0.1:{dead_port}")
    monkeypatch.setenv("http_proxy", f"http://user:hunter2@127.0.0.1:{dead_port}")
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:hunter2@127.0.0.1:{dead_port}")
    for url in ("http://wandb.example", "https://wandb.example"):
        error = fails(Unreachable, lambda url=url: viewer(make(url)))
        assert str(error) == "the proxy does not let us through to wandb.example"
        assert "HTTPS_PROXY" in error.hint


def test_a_proxy_that_wants_to_know_who(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with Scripted(*[refusal] * 3) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("https_proxy", proxy.url)
        error = fails(ServerError, lambda: viewer(make("http://wandb.example")))
        assert "407" in str(error) and "HTTPS_PROXY" in error.hint
        fails(Unreachable, lambda: viewer(make("https://wandb.example")))
    assert proxy.heads[1].startswith(b"CONNECT wandb.example:443")
    assert BASIC.encode() not in proxy.heads[1]


def test_through_a_proxy(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with Scripted(reply(b'{"data": {}}')) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert make("http://wandb.example").ask("", "{ x }", {}) == {}
    assert proxy.heads[0].startswith(b"POST http://wandb.example/graphql ")


@pytest.mark.parametrize(
    ("certificate", "trusted", "says", "hint"),
    [
        ("good", True, "", ""),
        ("expired", True, "has expired: this machine's clock says 20", "set the clock"),
        ("future", True, "is not valid yet: this machine's clock says 20", "set the clock"),
        ("stranger", True, "is for another host", "WANDB_BASE_URL"),
        ("good", False, "is not signed by anybody this machine trusts", "REQUESTS_CA_BUNDLE"),
    ],
)
def test_certificates(
    certificate: str, trusted: bool, says: str, hint: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trusted:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS / f"{certificate}.pem"))
    with Scripted(reply(b'{"data": {}}'), certificate=certificate) as server:
        transport = make(server.url)
        if not says:
            assert transport.ask("", "{ x }", {}) == {}
            return
        error = fails(Unreachable, lambda: viewer(transport))
    assert says in str(error) and hint in error.hint
    assert transport.requests == 1  # it will not be better the next time
    assert server.heads == []


@pytest.mark.parametrize("others", [None, str(TLS / "stranger.pem")])
@pytest.mark.parametrize("how", [Network(checked=False), Network(bundle=str(TLS / "good.pem"))])
def test_certificates_as_the_sdk_is_told(
    how: Network, others: str | None, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE is heard beside a REQUESTS_CA_BUNDLE, which many images set to the system's."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    if others:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", others)
    with Scripted(reply(b'{"data": {}}'), certificate="good") as server:
        assert make(server.url, network=how).ask("", "{ x }", {}) == {}


@pytest.mark.parametrize("others", [None, str(TLS / "stranger.pem")])
@pytest.mark.parametrize("path", ["/no/such/file.pem", __file__])
def test_certificates_of_the_sdk_that_are_not_there(
    path: str, others: str | None, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    if others:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", others)
    with Scripted(certificate="good") as server:
        error = fails(UsageError, lambda: viewer(make(server.url, network=Network(bundle=path))))
    assert "SSL_CERT_FILE" in error.line()


def test_headers_and_proxies_as_the_sdk_is_told(make: Make, tmp_path: Path) -> None:
    """The headers are for the server alone: its storage is another's."""
    with Scripted(reply(b'{"data": {}}')) as proxy:
        how = Network(headers={"X-Team": "ml"}, proxies={"http": proxy.url})
        transport = make("http://wandb.example", network=how)
        assert transport.ask("", "{ x }", {}) == {}
    assert proxy.heads[0].startswith(b"POST http://wandb.example/graphql ") and b"X-Team: ml" in proxy.heads[0]
    with Scripted(reply(b"data")) as proxy:
        how = Network(headers={"X-Team": "ml"}, proxies={"http": proxy.url})
        make("http://wandb.example", network=how).download("http://storage.example/file", tmp_path / "file")
    assert proxy.heads[0].startswith(b"GET http://storage.example/file ") and b"X-Team" not in proxy.heads[0]


def test_http_where_https_was_meant_and_the_other_way_round(server: Server, make: Make) -> None:
    error = fails(Unreachable, lambda: viewer(make(server.url.replace("http:", "https:"))))
    assert "does not speak https" in str(error) and "WANDB_BASE_URL" in error.hint
    with Scripted(certificate="good") as secure:
        fails(Unreachable, lambda: viewer(make(secure.url.replace("https:", "http:"), attempts=2)))


@pytest.mark.parametrize("bundle", ["/no/such/file.pem", __file__])
def test_certificates_that_are_not_there(bundle: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    with Scripted(certificate="good") as server:
        error = fails(UsageError, lambda: viewer(make(server.url)))
    assert "REQUESTS_CA_BUNDLE" in str(error)


# Files


def test_a_file_comes_whole(server: Server, transport: Transport, tmp_path: Path) -> None:
    path = tmp_path / "file.part"
    path.write_bytes(b"x" * 1_000_000)  # what an earlier attempt has left
    assert transport.download(signed(server), path, size=len(FILE)) == len(FILE)
    assert path.read_bytes() == FILE
    assert (transport.requests, transport.bytes) == (1, len(FILE))


def test_no_key_goes_to_the_storage(
    server: Server, transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine localhost login user password {KEY}\nmachine 127.0.0.1 login user password {KEY}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    viewer(transport)
    transport.download(signed(server), tmp_path / "a")
    server.fail("download", status=302, headers={"Location": signed(server).replace("localhost", "127.0.0.1")})
    transport.download(signed(server), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == FILE
    asked, *stored = server.requests
    assert asked.headers["Authorization"] == f"Basic {BASIC}"  # the Login's, not netrc's
    assert [request.operation for request in stored] == ["download"] * 3
    for request in stored:
        assert "Authorization" not in request.headers
        assert KEY not in str(request.headers)


@pytest.mark.parametrize("how", PASSING)
def test_files_are_tried_again(how: str, server: Server, make: Make, tmp_path: Path) -> None:
    transport = make(server.url)
    server.fail("download", times=3, **PASSING[how])
    assert transport.download(signed(server), tmp_path / "a") == len(FILE)
    assert (tmp_path / "a").read_bytes() == FILE
    assert transport.requests == 4
    assert transport.budget.quiet_until < 0  # the storage's troubles are not the server's
    if "Retry-After" in how:
        assert sum(slept(transport)) >= 21


def test_a_storage_that_is_slow(server: Server, make: Make, tmp_path: Path) -> None:
    transport = make(server.url, timeout=(5, 0.3))
    server.fail("download", latency=0.5)
    assert transport.download(signed(server), tmp_path / "a") == len(FILE)
    assert transport.requests > 1


def test_a_file_that_never_comes_whole(server: Server, make: Make, tmp_path: Path) -> None:
    transport = make(server.url, attempts=3)
    server.fail("download", truncate=1000, times=None)
    error = fails(Unreachable, lambda: transport.download(signed(server), tmp_path / "a"))
    assert "localhost" in str(error)
    assert transport.requests == 3


def test_a_file_of_another_size(server: Server, transport: Transport, tmp_path: Path) -> None:
    error = fails(ServerError, lambda: transport.download(signed(server), tmp_path / "a", size=len(FILE) + 1))
    assert f"{len(FILE)} bytes of a file of {len(FILE) + 1}" in str(error)
    assert transport.requests == 3


def test_addresses_that_hold_no_longer(server: Server, transport: Transport, tmp_path: Path) -> None:
    url = signed(server)
    server.expire_urls()
    error = fails(ExpiredURL, lambda: transport.download(url, tmp_path / "a"))
    assert error.status == 403
    assert transport.download(signed(server), tmp_path / "a") == len(FILE)
    error = fails(ExpiredURL, lambda: transport.download(signed(server, "nothing"), tmp_path / "a"))
    assert error.status == 404
    for status in (400, 401, 410):
        server.fail("download", status=status)
        fails(ExpiredURL, lambda: transport.download(signed(server), tmp_path / "a"))


def test_a_web_page_is_no_file_unless_it_is_one(server: Server, transport: Transport, tmp_path: Path) -> None:
    server.fail("download", status=200, body=HTML, times=2)
    assert transport.download(signed(server), tmp_path / "a") == len(FILE)
    server.fail("download", status=200, body=HTML, times=3)
    error = fails(ServerError, lambda: transport.download(signed(server), tmp_path / "a"))
    assert "web page" in str(error)
    assert transport.download(signed(server, "page.html"), tmp_path / "a") == len(HTML)


@pytest.mark.parametrize(
    "url",
    ["", "no address", "file:///etc/passwd", "http://", "http://[::1", "https://a:b:c/?signature=1", "http://x\udcff/",
     "http://" + "a" * 300 + ".example/"],
)  # fmt: skip
def test_addresses_that_are_none(url: str, transport: Transport, tmp_path: Path) -> None:
    fails(ServerError, lambda: transport.download(url, tmp_path / "a"))
    assert transport.requests == 1
    assert not (tmp_path / "a").exists()


def test_an_address_that_goes_round_in_circles(server: Server, transport: Transport, tmp_path: Path) -> None:
    server.fail("download", status=302, headers={"Location": signed(server)}, times=None)
    fails(ServerError, lambda: transport.download(signed(server), tmp_path / "a"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is full")
@pytest.mark.parametrize("size", [10, len(FILE)])
def test_a_disk_that_is_full(size: int, server: Server, transport: Transport) -> None:
    server.fail("download", status=200, body=FILE[:size])
    error = fails(NoRoom, lambda: transport.download(signed(server), Path("/dev/full")))
    assert "No space left" in str(error) and "/dev/full" in str(error)


def test_a_folder_that_is_not_there(server: Server, transport: Transport, tmp_path: Path) -> None:
    fails(CacheError, lambda: transport.download(signed(server), tmp_path / "no" / "a"))
    assert transport.requests == 1


def test_the_rest_is_fetched_if_it_is_the_rest_of_the_same(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wandbsync.sources.api.body.CHUNK", 100)

    def part(start: int, stop: int, total: int, *headers: str) -> bytes:
        """An answer that promises everything from `start` but ends at `stop`."""
        if start:
            first = "HTTP/1.1 206 Partial Content"
            headers = (f"Content-Range: bytes {start}-{total - 1}/{total}", *headers)
        else:
            first = "HTTP/1.1 200 OK"
        head = "\r\n".join([first, f"Content-Length: {total - start}", "Connection: close", *headers, "", ""])
        return head.encode() + FILE[start:stop]

    n = len(FILE)
    cases = {
        "resumed twice": [part(0, 100, n, 'ETag: "a"'), part(100, 3000, n, 'ETag: "a"'), part(3000, n, n, 'ETag: "a"')],
        "another by now": [part(0, 100, n, 'ETag: "a"'), part(0, n, n, 'ETag: "b"')],
        "wrongly another": [part(0, 100, n, 'ETag: "a"'), part(100, n, n, 'ETag: "b"'), part(0, n, n, 'ETag: "b"')],
        "not where asked": [part(0, 100, n, 'ETag: "a"'), part(90, n, n, 'ETag: "a"'), part(0, n, n)],
        "only alike": [part(0, 100, n, 'ETag: W/"a"'), part(0, n, n)],
        "not named": [part(0, 100, n), part(0, n, n)],
        "no rest": [part(0, 100, n, 'ETag: "a"'), reply(b"", status="416 Range Not Satisfiable"), part(0, n, n)],
    }
    ranges = {}
    for name, answers in cases.items():
        with Scripted(*answers) as storage:
            size = make("http://unused").download(f"{storage.url}/a?signature=1", tmp_path / "a", size=n)
        assert (size, (tmp_path / "a").read_bytes()) == (n, FILE), name
        ranges[name] = [wanted for head in storage.heads for wanted in lines(head, b"Range")]
        assert len(storage.heads) == len(answers)
        assert all(lines(head, b"If-Range") == [b'"a"'] for head in storage.heads if lines(head, b"Range"))
    assert ranges == {
        "resumed twice": [b"bytes=100-", b"bytes=3000-"],
        "another by now": [b"bytes=100-"],
        "wrongly another": [b"bytes=100-"],
        "not where asked": [b"bytes=100-"],
        "only alike": [],
        "not named": [],
        "no rest": [b"bytes=100-"],
    }


@pytest.mark.parametrize("hold", [len(FILE) - 1, len(FILE)])
def test_what_is_small_need_not_be_written(make: Make, tmp_path: Path, hold: int) -> None:
    packed = gzip.compress(FILE)
    cut = reply(FILE[:-1], length=len(FILE))
    with Scripted(cut, reply(FILE)) as storage:
        got = make("http://unused").load(f"{storage.url}/a", tmp_path / "new" / "a", hold=hold)
    assert got == (FILE if hold == len(FILE) else tmp_path / "new" / "a")
    assert got == FILE if isinstance(got, bytes) else got.read_bytes() == FILE
    assert isinstance(got, Path) == (tmp_path / "new").exists()
    with Scripted(cut, reply(packed, "Content-Encoding: gzip")) as storage:  # how large it will be is not said
        path = make("http://unused").load(f"{storage.url}/a", tmp_path / "b", hold=hold)
    assert path == tmp_path / "b"
    assert path.read_bytes() == FILE


def test_a_file_that_the_storage_compresses(make: Make, tmp_path: Path) -> None:
    packed = gzip.compress(FILE)
    with Scripted(reply(packed[:-50], "Content-Encoding: gzip", length=len(packed)),
                  reply(packed, "Content-Encoding: gzip", 'ETag: "a"')) as storage:  # fmt: skip
        assert make("http://unused").download(f"{storage.url}/a", tmp_path / "a", size=len(FILE)) == len(FILE)
    assert (tmp_path / "a").read_bytes() == FILE


# What must not be told


def test_logs_hold_no_secrets(
    server: Server, transport: Transport, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        viewer(transport)
        server.fail("download", reset="before")
        server.fail("download", status=302, headers={"Location": signed(server)})
        transport.download(signed(server), tmp_path / "a")
        server.expire_urls()
        fails(ExpiredURL, lambda: transport.download(server.signer.url("files", "x") + "0", tmp_path / "a"))
    assert "/storage/files" in caplog.text
    for secret in (KEY, BASIC, "signature", "expires="):
        assert secret not in caplog.text
    assert KEY not in repr(transport) + repr(transport.login) + repr(transport.budget)


# Several at once


def together(*calls: Callable[[], object]) -> list[object]:
    """What calls in threads of their own return or raise."""
    found: list[object] = [None] * len(calls)

    def run(number: int, call: Callable[[], object]) -> None:
        try:
            found[number] = call()
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return found


def test_a_storm_of_refusals(server: Server, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_module, "CAUTION", 0.01)
    monkeypatch.setattr(budget_module, "MOST", 0.02)
    early = []

    class Watched(Budget):
        """Notes whoever is sent off before the quiet is over."""

        def _enter(self, project: str) -> int:
            number = super()._enter(project)
            if self.clock() < self._quiet:
                early.append(number)
            return number

    for number in range(20):  # every third request, for a while
        server.fail("Viewer", status=429, retry_after=0.02, skip=2 * number + 2)
    transport = make(server.url, budget=Watched())
    found = together(*[lambda n=n: [viewer(transport, f"p{n}") for _ in range(20)] for n in range(4)])
    assert found == [[ME] * 20] * 4
    assert transport.requests == 100
    assert transport.budget.waited >= 0.02
    assert early == []


@pytest.mark.parametrize("retry_after", [True, False])
def test_a_limit_for_all_threads_together(retry_after: bool, server: Server, make: Make) -> None:
    limit = server.limit("Viewer", rate=100, burst=10, retry_after=retry_after)
    transport = make(server.url, budget=Budget())
    began = time.monotonic()
    found = together(*[lambda n=n: [viewer(transport, f"p{n}") for _ in range(15)] for n in range(5)])
    seconds = time.monotonic() - began
    assert found == [[ME] * 15] * 5
    assert limit.refused <= 5
    assert transport.requests - limit.refused <= 10 + 100 * seconds + 1
    assert transport.budget.waited > 0


def test_one_project_is_asked_one_thing_at_a_time(server: Server, make: Make) -> None:
    server.latency = 0.02
    transport = make(server.url, budget=Budget())
    found = together(*[lambda: viewer(transport, "me/p")] * 6)
    assert found == [ME] * 6
    spans = sorted((request.began, request.began + request.seconds) for request in server.requests)
    assert all(end <= start + 0.001 for (_, end), (start, _) in itertools.pairwise(spans))


def test_many_threads_share_what_is_counted(server: Server, make: Make, tmp_path: Path) -> None:
    transport = make(server.url, budget=Budget(in_flight=4, downloads=4))
    urls = [signed(server)] * 12
    found = together(*[lambda n=n, u=u: transport.download(u, tmp_path / str(n)) for n, u in enumerate(urls)],
                     *[lambda: viewer(transport)] * 12)  # fmt: skip
    assert found == [len(FILE)] * 12 + [ME] * 12
    assert transport.requests == 24
    assert transport.bytes == sum(count.bytes_out for count in server.counts.values())


# Ctrl-C


def test_stop_ends_a_wait_for_the_rate_limit(server: Server, make: Make) -> None:
    server.fail("Viewer", status=429, retry_after=100, times=None)
    budget = Budget()
    transport = make(server.url, budget=budget)
    threading.Timer(0.1, budget.stop).start()
    began = time.monotonic()
    found = together(*[lambda n=n: viewer(transport, str(n)) for n in range(3)])
    assert [type(each) for each in found] == [Stopped] * 3
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("certificate", ["", "good"])
def test_stop_ends_a_wait_for_an_answer(
    certificate: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(TLS / "good.pem"))
    half = reply(FILE)[:5000]
    with Scripted(b"", half, certificate=certificate, hold=True) as server:
        budget = Budget()
        transport = make(server.url, budget=budget)
        threading.Timer(0.2, budget.stop).start()
        began = time.monotonic()
        first = together(lambda: viewer(transport), lambda: transport.download(f"{server.url}/a", tmp_path / "a"))
        assert [type(each) for each in first] == [Stopped] * 2
        assert time.monotonic() - began < 10
    with pytest.raises(Stopped):
        transport.download("http://x", tmp_path / "a")


def test_ctrl_c_is_not_swallowed(server: Server, transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    server.fail("Viewer", status=429)
    monkeypatch.setattr(transport.budget, "_sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        viewer(transport)


# A server that says what it is told to


def reply(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    head = [f"HTTP/1.1 {status}", f"Content-Length: {length}", "Connection: close", *headers, "", ""]
    return "\r\n".join(head).encode() + body


def lines(head: bytes, name: bytes) -> list[bytes]:
    """The values of a header."""
    return [line.partition(b": ")[2] for line in head.split(b"\r\n") if line.lower().startswith(name.lower() + b":")]


class Scripted:
    """Answers one connection after the other with the given bytes; `heads` is what it was asked.

    hold: keep connections open until the end instead of closing them after the answer.
    """

    def __init__(self, *answers: bytes, certificate: str = "", hold: bool = False) -> None:
        self.heads: list[bytes] = []
        self._answers, self._hold = list(answers), hold
        self._context: ssl.SSLContext | None = None
        if certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(TLS / f"{certificate}.pem", TLS / "key.pem")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._socket.getsockname()[1]}"
        self._over = threading.Event()
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            socket.create_connection(self._socket.getsockname()).close()  # wakes accept()
        self._thread.join(10)
        for held in self._held:
            held.close()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            if self._over.is_set():
                connection.close()
                return
            with contextlib.suppress(OSError):
                connection.settimeout(5)
                self._answer(connection)
            if not self._hold:
                connection.close()

    def _answer(self, connection: socket.socket) -> None:
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True)
            connection.settimeout(5)
        self._held.append(connection)
        head = b""
        while b"\r\n\r\n" not in head:
            more = connection.recv(65536)
            if not more:
                return
            head += more
        head, _, body = head.partition(b"\r\n\r\n")
        wanted = int((lines(head, b"Content-Length") or [b"0"])[0])
        while len(body) < wanted:
            body += connection.recv(65536)
        self.heads.append(head + b"\r\n")
        if self._answers:
            connection.sendall(self._answers.pop(0))
        if not self._hold:
            connection.close()
