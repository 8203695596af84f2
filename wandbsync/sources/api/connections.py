"""Connections that carry no credentials but those given, keep no cookies, and can be cut from another thread.

Proxies and certificates come from the environment, as `requests` has it, and from what the SDK is told (network.py).
What `requests` also takes from there is what netrc has for a host, on the first request and on every redirect: not
here, where one key is for one server.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import weakref
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

from ... import __version__
from ...errors import UsageError
from .network import Network

KEPT = 32  # connections kept open per host


class Session(requests.Session):
    """May be used by several threads at once."""

    def __init__(self, auth: tuple[str, str] | None, network: Network, **headers: str) -> None:
        super().__init__()
        self._network = network
        if not network.checked:  # as was asked for; urllib3 would say so at every request
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self.auth = auth or _no_credentials
        self.headers.update({"User-Agent": f"wandbsync/{__version__}", **headers})
        self.max_redirects = 5
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._sockets = _Sockets()
        self._environment: dict[tuple[str, str], Any] = {}
        self._blanks: dict[str, requests.PreparedRequest] = {}
        for prefix in ("https://", "http://"):
            self.mount(prefix, _Adapter(self._sockets))
        logging.getLogger("urllib3.connectionpool").addFilter(_without_queries)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Send no credentials where a redirect leads."""
        prepared_request.headers.pop("Authorization", None)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """A copy of the first of its method, with its own address, headers and body: merging the rest takes a while."""
        method = request.method or "GET"
        if method not in self._blanks:
            self._blanks[method] = super().prepare_request(requests.Request(method, request.url))
        prepared = self._blanks[method].copy()
        prepared.prepare_url(request.url or "", None)
        prepared.headers.update(request.headers)
        prepared.prepare_body(request.data, None)
        return prepared

    def merge_environment_settings(self, url: str, *settings: Any) -> Any:
        """Proxies and certificates as they are set, looked up once for each host: it takes a while."""
        parts = urlsplit(url)
        key = (parts.scheme, parts.netloc)
        if key not in self._environment:
            found = super().merge_environment_settings(url, *settings)
            found["proxies"].update(self._network.proxies)
            if not self._network.checked:
                found["verify"] = False
            elif found["verify"] is True and self._network.bundle:
                found["verify"] = self._network.bundle
            elif self._network.bundle not in (None, found["verify"]) and parts.scheme == "https":
                self._trust(self._network.bundle)
            self._environment[key] = found
        return dict(self._environment[key])

    def _trust(self, bundle: str) -> None:
        """Trust certificates besides those that the environment names for `requests`. Raises UsageError."""
        context = create_urllib3_context()
        try:
            context.load_verify_locations(*((None, bundle) if Path(bundle).is_dir() else (bundle,)))
        except OSError as error:
            text = f"the certificates in {bundle} cannot be read"
            raise UsageError(text, hint="SSL_CERT_FILE names a file of certificates, SSL_CERT_DIR a folder") from error
        self.mount("https://", _Adapter(self._sockets, ssl_context=context))

    def hang_up(self) -> None:
        """Cut all connections for good, so that nobody goes on waiting for an answer; they get a ConnectionError."""
        self._sockets.cut()


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _without_queries(record: logging.LogRecord) -> bool:
    """Cut the queries of addresses out of what urllib3 logs: they hold signatures."""
    if isinstance(record.args, tuple):
        record.args = tuple(arg.partition("?")[0] if isinstance(arg, str) else arg for arg in record.args)
    return True


class _Sockets:
    """Those that are open; a response may read from one that its connection has let go already."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.RLock()  # a signal may call `cut` amid `add`
        self._over = False

    def add(self, opened: object) -> None:
        if isinstance(opened, socket.socket):
            with self._lock:
                self._all.add(opened)
            if self._over:
                self.cut()

    def cut(self) -> None:
        self._over = True
        with self._lock:
            for each in tuple(self._all):
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(each, socket.SHUT_RDWR)  # SSLSocket's own would trip up the reader


class _Adapter(HTTPAdapter):
    """Makes connections whose sockets are known."""

    def __init__(self, sockets: _Sockets, **pool: Any) -> None:
        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                sockets.add(self.sock)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                sockets.add(self.sock)

        class PlainPool(urllib3.HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(urllib3.HTTPSConnectionPool):
            ConnectionCls = Secure

        self._pools = {"http": PlainPool, "https": SecurePool}
        self._pool = pool
        super().__init__(pool_maxsize=KEPT)
        self.poolmanager.connection_pool_kw.update(pool)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **proxy_kwargs, **self._pool)
        if not proxy.lower().startswith("socks"):  # those have connections of their own kind
            manager.pool_classes_by_scheme = self._pools
        return manager
