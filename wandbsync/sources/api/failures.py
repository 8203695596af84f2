"""Why a request came to nothing, and whether another attempt may help: foreign exceptions become ours here.

Their own texts are never shown: they quote addresses, and with those the signatures of signed URLs.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator

import requests
import urllib3
from urllib3.util.ssl_match_hostname import CertificateError

from ...errors import ServerError, TimedOut, Unreachable, UsageError, WandbsyncError

SLOW = 2  # attempts to get what takes too long
UNREACHED = 2  # attempts to connect to a host that has never answered: a wrong name is told at once
NETWORK = "check the network and WANDB_BASE_URL"
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")
PROXY = "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"

# https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
NOT_YET_VALID, EXPIRED, WRONG_NAME, WRONG_ADDRESS = 9, 10, 62, 64


class Failed(Exception):
    """An attempt came to nothing."""

    def __init__(
        self,
        error: WandbsyncError,
        *,
        attempts: int | None = None,
        refusal: bool = False,
        slow: bool = False,
        pause: float | None = None,
    ) -> None:
        super().__init__(str(error))
        self.error = error  # to be raised if there is no other attempt
        self.attempts = attempts  # how many there may be of this kind; None: as many as of any
        self.refusal = refusal  # for the rate limit: the budget knows how long to wait
        self.slow = slow  # it took all the time that it may take
        self.pause = pause or 0.0  # seconds that the server asked for


def storage_hint(host: str, server: str) -> str:
    """What to try where the storage that signed addresses lead to cannot be reached, while the server can."""
    if _name(host) in LOOPBACK and _name(server) not in LOOPBACK:  # https://github.com/wandb/server/issues/37
        return f"the server says that its files are on {host}, which is this machine: its administrator can mend that"
    return f"the server keeps its files on {host}: let this machine reach it, or check HTTPS_PROXY and NO_PROXY"


def explain(
    error: Exception, host: str, timeout: tuple[float, float], *, reached: bool, hint: str | None = None
) -> Failed:
    """Why `host` (with its port) gave no answer to a request made by `requests`; `reached`: it did so before.

    `hint`: what to try where the network is in the way.
    """
    network = hint or NETWORK
    causes = list(_causes(error))
    connecting = None if reached else UNREACHED

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Failed(_certificate(cause.verify_code, host), attempts=1)
        if isinstance(cause, CertificateError):  # urllib3 before 2.0 compares names itself
            return Failed(_certificate(WRONG_NAME, host), attempts=1)
    if caused_by(requests.exceptions.ProxyError, urllib3.exceptions.ProxyError):
        text = f"the proxy does not let us through to {host}"
        return Failed(Unreachable(text, hint=hint or PROXY), attempts=connecting)
    if caused_by(socket.gaierror):
        return Failed(Unreachable(f"no host called {_name(host)} can be found", hint=network), attempts=connecting)
    if caused_by(ConnectionRefusedError):
        return Failed(Unreachable(f"{host} refuses the connection", hint=network), attempts=connecting)
    if caused_by(urllib3.exceptions.NewConnectionError):
        return Failed(Unreachable(f"there is no way to {host}", hint=network), attempts=connecting)
    if caused_by(requests.exceptions.ConnectTimeout, urllib3.exceptions.ConnectTimeoutError):
        text = f"{host} cannot be reached within {timeout[0]:g} s"
        return Failed(Unreachable(text, hint=network), attempts=connecting)
    if caused_by(requests.exceptions.ReadTimeout, urllib3.exceptions.ReadTimeoutError, TimeoutError):
        text = f"{host} did not answer within {timeout[1]:g} s"
        return Failed(TimedOut(text), slow=True)
    if any(_tls(cause, "WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE") for cause in causes):
        text = f"{host} does not speak https on this port"
        hint = "check the port, and http or https, in WANDB_BASE_URL"
        return Failed(Unreachable(text, hint=hint), attempts=connecting)
    if type(error) is ValueError or caused_by(  # as urllib.parse raises it
        requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema,
        requests.exceptions.TooManyRedirects, urllib3.exceptions.LocationValueError,
    ):  # fmt: skip
        return Failed(ServerError(f"{host} gave an address that leads nowhere", hint="try again later"), attempts=1)
    if "CA certificate bundle" in str(error) or any(_tls(cause, "NO_CERTIFICATE_OR_CRL_FOUND") for cause in causes):
        text = "the certificates named in REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE cannot be read"
        return Failed(UsageError(text, hint="name a file of certificates there, or nothing"), attempts=1)
    return Failed(Unreachable(f"the connection to {host} broke off", hint="try again later"))


def _certificate(code: int, host: str) -> Unreachable:
    """What is wrong with a certificate, by OpenSSL's number for it."""
    clock = f"this machine's clock says {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"
    if code == NOT_YET_VALID:
        return Unreachable(f"the certificate of {host} is not valid yet: {clock}", hint="set the clock if it is wrong")
    if code == EXPIRED:
        hint = "set the clock if it is wrong; otherwise the server needs a new certificate"
        return Unreachable(f"the certificate of {host} has expired: {clock}", hint=hint)
    if code in (WRONG_NAME, WRONG_ADDRESS):
        return Unreachable(f"the certificate of {host} is for another host", hint="check WANDB_BASE_URL")
    return Unreachable(
        f"the certificate of {host} is not signed by anybody this machine trusts",
        hint="if a company's server or proxy signs its own, name that in SSL_CERT_FILE or REQUESTS_CA_BUNDLE",
    )


def _name(host: str) -> str:
    """The host without its port."""
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() else host


def _tls(cause: BaseException, *reasons: str) -> bool:
    return isinstance(cause, ssl.SSLError) and cause.reason in reasons


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it wraps, in whatever way."""
    waiting, seen = [error], set[int]()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen or isinstance(cause, WandbsyncError):  # ours: what the caller was about when this happened
            continue
        seen.add(id(cause))
        yield cause
        if isinstance(cause, OSError) and not isinstance(cause, requests.exceptions.RequestException):
            continue  # from the socket itself
        inner = (cause.__cause__, cause.__context__, getattr(cause, "reason", None), *cause.args)
        waiting += [other for other in inner if isinstance(other, BaseException)]
