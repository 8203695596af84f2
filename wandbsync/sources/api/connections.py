"""Connections that carry no credentials but those given, keep no cookies, and can be cut from another thread.

Proxies and certificates come from the environment, as `requests` has it. What it also takes from there is what netrc
has for a host, on the first request and on every redirect: not here, where one key is for one server.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from ... import __version__

KEPT = 32  # connections kept open per host


class Session(requests.Session):
    """May be used by several threads at once: nothing of it changes after it is made."""

    def __init__(self, auth: tuple[str, str] | None, **headers: str) -> None:
        super().__init__()
        self.auth = auth or _no_credentials
        self.headers.update({"User-Agent": f"wandbsync/{__version__}", **headers})
        self.max_redirects = 5
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._opened: set[_Noted] = set()
        for prefix in ("https://", "http://"):
            self.mount(prefix, _Adapter(self._opened))
        logging.getLogger("urllib3.connectionpool").addFilter(_without_queries)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Send no credentials where a redirect leads."""
        prepared_request.headers.pop("Authorization", None)

    def hang_up(self) -> None:
        """Cut all connections, so that nobody goes on waiting for an answer; they get a ConnectionError."""
        for connection in tuple(self._opened):
            stream = connection.sock
            if stream is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(stream, socket.SHUT_RDWR)  # SSLSocket's own would trip up the reader


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _without_queries(record: logging.LogRecord) -> bool:
    """Cut the queries of addresses out of what urllib3 logs: they hold signatures."""
    if isinstance(record.args, tuple):
        record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
    return True


class _Adapter(HTTPAdapter):
    """Makes connections that are noted while they are open."""

    def __init__(self, opened: set[_Noted]) -> None:
        class Plain(_Noted):
            everyone = opened

        class Secure(_Noted, HTTPSConnection):
            everyone = opened

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Secure

        self._pools = {"http": PlainPool, "https": SecurePool}
        super().__init__(pool_maxsize=KEPT)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):  # those have connections of their own kind
            manager.pool_classes_by_scheme = self._pools
        return manager


class _Noted(HTTPConnection):
    """A connection that is in `everyone` while it is open."""

    everyone: set[_Noted]

    def connect(self) -> None:
        super().connect()
        self.everyone.add(self)

    def close(self) -> None:
        self.everyone.discard(self)
        super().close()
