"""Requests over HTTPS, tried again until they are answered: GraphQL with the API key, signed addresses without it.

The key goes to the server of the Login and nowhere else: not to the storage that signed addresses lead to, not where a
redirect leads, and not into a message or a log.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from ... import files
from ...errors import CacheError, ExpiredURL, NoRoom, RateLimited, ServerError
from . import body as bodies
from .answers import BETWEEN, STRANGE, data_of, is_page, named, passing
from .budget import Budget, retry_after
from .connections import Session
from .credentials import Login
from .failures import SLOW, Failed, explain, storage_hint

HOPS = 3  # redirects that are followed


class Transport:
    """One server and its storage, asked by any number of threads; close it in the end.

    timeout: seconds to connect, and seconds between two pieces of an answer.
    attempts: how often one thing is asked for at most; refusals for the rate limit do not count.
    patience: seconds from the first failure or refusal after which no other attempt is begun.
    """

    def __init__(
        self,
        login: Login,
        budget: Budget,
        *,
        timeout: tuple[float, float] = (10.0, 120.0),
        attempts: int = 8,
        patience: float = 600.0,
    ) -> None:
        self.login, self.budget = login, budget
        self.timeout, self.attempts, self.patience = timeout, attempts, patience
        self.requests = 0  # sent, with every attempt
        self.bytes = 0  # received in bodies, as they came over the wire
        self._counting = threading.Lock()
        self._reached: set[str] = set()  # hosts that have answered
        headers = {"Content-Type": "application/json", "Accept-Encoding": "gzip", **login.network.headers}
        self._api = Session(("api", login.key), login.network, **headers)
        self._storage = Session(None, login.network, **{"Accept-Encoding": "identity"})
        budget.at_stop(self._api.hang_up)
        budget.at_stop(self._storage.hang_up)

    def ask(
        self,
        operation: str,
        query: str,
        variables: Mapping[str, Any],
        *,
        project: str = "",
        attempts: int | None = None,
    ) -> dict[str, Any]:
        """The `data` of the answer to a GraphQL query; `attempts`: fewer than usual, where there is another way.

        Raises NotSignedIn, NotPermitted, Unreachable, RateLimited, Stopped; ServerError for what the server refuses
        (`messages`, `status`, and `data` if there is some in spite of errors) and if it answers no JSON.
        """
        body = json.dumps({"operationName": operation, "query": query, "variables": dict(variables)}).encode()
        trying = _Trying(self)
        while True:
            self._heed_quiet(trying)
            try:
                with self.budget.slot(project):
                    return self._asked(body)
            except Failed as failed:
                problem = failed
                if failed.slow:  # nothing else of its project is asked meanwhile
                    problem.attempts = SLOW
                if attempts is not None:
                    problem.attempts = min(attempts, problem.attempts or attempts)
            trying.after(problem)  # not in the handler, or its error would drag foreign ones along

    def download(self, url: str, path: Path, *, size: int | None = None) -> int:
        """Write what a signed address leads to into a file; the number of bytes, which has to be `size` if given.

        A body that was cut short is fetched again, from where it broke off if the storage vouches for it being the
        same. Raises ExpiredURL, ServerError, Unreachable, Stopped; CacheError or NoRoom if the file cannot be written.
        What is in the file then may be a part.
        """
        part = _Part(path, size)
        self._download(url, part)
        return part.written

    def load(self, url: str, path: Path, *, hold: int) -> bytes | Path:
        """What a signed address leads to; if it has more than `hold` bytes, the path of a new file with it.

        The file's folder is made. Raises what `download` does.
        """
        part = _Part(path, hold=hold)
        self._download(url, part)
        return path if part.content is None else part.content

    def _download(self, url: str, part: _Part) -> None:
        trying = _Trying(self)
        while True:
            try:
                with self.budget.download():
                    return self._downloaded(url, part)
            except Failed as failed:
                problem = failed
            trying.after(problem)

    def close(self) -> None:
        self._api.close()
        self._storage.close()

    def _asked(self, body: bytes) -> dict[str, Any]:
        """One attempt; raises Failed."""
        url: str | None = f"{self.login.base_url}/graphql"
        for _ in range(HOPS):
            assert url
            with self._sent(self._api, "POST", url, body, {}) as answer:
                content = bodies.content(answer, self.login.host, self.timeout[1])
            url = _elsewhere_here(url, answer.headers.get("location", "")) if answer.status_code in (307, 308) else None
            if url is None:
                break
        headers = _lower(answer)
        self.budget.saw(answer.status_code, headers)
        return data_of(answer.status_code, headers, content, self.login)

    def _downloaded(self, url: str, part: _Part) -> None:
        """One attempt; raises Failed."""
        host = _host(url)
        with self._sent(self._storage, "GET", url, None, part.wanted()) as answer:
            status, headers = answer.status_code, _lower(answer)
            says = f"{host} answers {named(status)} for a file"
            if status in (400, 401, 403, 404, 410):
                raise Failed(
                    ExpiredURL(f"{host} does not give the file any more ({status})", status=status), attempts=1
                )
            if passing(status):
                raise Failed(ServerError(says, hint="try again later", status=status), pause=retry_after(headers))
            if status == 416:  # there is no rest, although something was missing
                part.forget()
            if status not in (200, 206):
                raise Failed(ServerError(says, hint="try again later", status=status), attempts=STRANGE)
            if is_page(headers) and not urlsplit(url).path.lower().endswith((".html", ".htm")):
                error = ServerError(f"{host} answered a web page instead of a file", hint=BETWEEN, status=status)
                raise Failed(error, attempts=STRANGE)
            part.write(answer, bodies.pieces(answer, host, self.timeout[1]))
        if part.size is not None and part.written != part.size:
            text = f"{host} gave {part.written} bytes of a file of {part.size}"
            part.forget()
            raise Failed(ServerError(text, hint="try again later"), attempts=STRANGE)

    @contextlib.contextmanager
    def _sent(
        self, session: Session, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Iterator[requests.Response]:
        """An answer, to be read in the block; what goes wrong on the way, or there, raises Failed."""
        host = _host(url)
        with self._counting:
            self.requests += 1
        try:
            with session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=self.timeout,
                stream=True,
                allow_redirects=body is None,  # or the key would go where a login page is
            ) as answer:
                self._reached.add(host)
                try:
                    yield answer
                finally:
                    received = answer.raw.tell()
                    with self._counting:
                        self.bytes += received
                length = answer.headers.get("content-length", "")
                if answer.status_code in (200, 206) and length.isdigit() and received != int(length):
                    raise urllib3.exceptions.ProtocolError("cut short")  # urllib3 1.26 would not tell
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            hint = storage_hint(host, self.login.host) if session is self._storage else None
            failed = explain(error, host, self.timeout, reached=host in self._reached, hint=hint)
        else:
            return
        raise failed

    def _heed_quiet(self, trying: _Trying) -> None:
        """Raise RateLimited if the server wants quiet for longer than we wait."""
        quiet = self.budget.quiet_until - self.budget.clock()
        if quiet > trying.left():
            text = f"{self.login.host} wants no requests for another {quiet / 60:.0f} min"
            raise RateLimited(text, hint="try again later; --offline answers from the cache")


class _Trying:
    """How often and how long one thing has been tried."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self._budget = transport, transport.budget
        self._failures = 0
        self._since: float | None = None

    def left(self) -> float:
        """Seconds in which another attempt may be begun."""
        spent = 0.0 if self._since is None else self._budget.clock() - self._since
        return self._transport.patience - spent

    def after(self, failed: Failed) -> None:
        """Pause before the next attempt, or raise the error if there is to be none."""
        self._budget.check()
        if self._since is None:
            self._since = self._budget.clock()
        pause = 0.0
        if not failed.refusal:
            self._failures += 1
            pause = max(self._budget.back_off(self._failures), failed.pause)
        if self._failures >= min(self._transport.attempts, failed.attempts or self._transport.attempts):
            raise failed.error
        if pause >= self.left():
            raise failed.error
        self._budget.pause(pause)


class _Part:
    """A file as far as it has come; if `hold` is given and it has no more bytes, only its content."""

    def __init__(self, path: Path, size: int | None = None, *, hold: int | None = None) -> None:
        self.path, self.size, self.hold = path, size, hold
        self.content: bytes | None = None
        self.written = 0
        self._tag = ""  # what the storage calls this content

    def wanted(self) -> dict[str, str]:
        """The headers that ask for the rest, if there is a way to be sure that it is the rest of the same."""
        return {"Range": f"bytes={self.written}-", "If-Range": self._tag} if self.written and self._tag else {}

    def forget(self) -> None:
        self.content, self.written, self._tag = None, 0, ""

    def write(self, answer: requests.Response, pieces: Iterator[bytes]) -> None:
        """Add what comes. Raises CacheError, or what `pieces` raises."""
        tag = answer.headers.get("etag", "")
        begins = answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
        rest = answer.status_code == 206
        if rest and not (self.written and tag == self._tag and begins == str(self.written)):
            self.forget()
            raise urllib3.exceptions.ProtocolError("not the rest that was asked for")
        if not rest:
            self.forget()
        if self.hold is not None and not rest and _length(answer) <= self.hold:
            self.content = b"".join(pieces)
            return
        # A weak tag does not vouch for every byte, and what is decoded here has other positions than what is sent.
        self._tag = "" if tag.startswith("W/") or "content-encoding" in answer.headers else tag
        try:
            if self.hold is not None:
                files.private_folder(self.path.parent)
            opener = None if self.hold is None else files.private_opener  # for the cache
            with open(self.path, "r+b" if rest else "wb", opener=opener) as file:
                file.seek(self.written)
                for piece in pieces:
                    file.write(piece)
                    self.written += len(piece)
        except TimeoutError:  # of the connection
            raise
        except OSError as error:
            text = f"cannot write {self.path}: {error.strerror or error}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom(text) from error
            raise CacheError(text, hint="check the folder, or use another") from error


def _length(answer: requests.Response) -> float:
    """How many bytes an answer says it has, decoded; infinite if it does not say."""
    length = answer.headers.get("content-length", "")
    return int(length) if length.isdigit() and "content-encoding" not in answer.headers else math.inf


def _lower(answer: requests.Response) -> dict[str, str]:
    """The headers, with names in lower case."""
    return {name.lower(): value for name, value in answer.headers.items()}


def _elsewhere_here(url: str, location: str) -> str | None:
    """Where a redirect leads if that is on the same server, so that the key stays where it is."""
    with contextlib.suppress(ValueError):
        target = urljoin(url, location)
        if location and urlsplit(target)[:2] == urlsplit(url)[:2]:
            return target
    return None


def _host(url: str) -> str:
    """Host and port of an address, for messages."""
    with contextlib.suppress(ValueError):
        return urlsplit(url).netloc.rpartition("@")[2] or "the server"
    return "the server"
