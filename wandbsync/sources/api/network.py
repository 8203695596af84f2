"""How the SDK is told to reach a server besides its address and key: certificates, headers, proxies.

From the environment and W&B's settings files, under the SDK's own names; the environment goes first.

    WANDB_INSECURE_DISABLE_SSL                                insecure_disable_ssl     certificates are not checked
    SSL_CERT_FILE, SSL_CERT_DIR                                                        whose certificates are trusted
    WANDB_X_EXTRA_HTTP_HEADERS, WANDB__EXTRA_HTTP_HEADERS     x_extra_http_headers     JSON; for the server alone
    WANDB_HTTP_PROXY, WANDB_HTTPS_PROXY                       http_proxy, https_proxy
    WANDB__PROXIES, WANDB_X_PROXIES                           x_proxies                JSON: scheme -> proxy

REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, HTTP_PROXY, HTTPS_PROXY and NO_PROXY are what `requests` itself heeds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ...errors import UsageError

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, token


@dataclass(frozen=True, slots=True)
class Network:
    """What is set; no message shows headers or proxies, which may hold passwords."""

    checked: bool = True  # whether certificates are
    bundle: str | None = None  # a file or folder of certificates to trust, instead of the usual ones
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # for the server, not for its storage
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)  # scheme -> proxy


def network(env: Mapping[str, str], settings: Mapping[str, str]) -> Network:
    """What the environment and the settings files say. Raises UsageError, which names the setting."""

    def found(*names: str, setting: str) -> tuple[str, str]:
        """Where it stands, and what."""
        places = [*((name, env.get(name)) for name in names), (f"{setting} in wandb/settings", settings.get(setting))]
        return next(((where, text.strip()) for where, text in places if text and text.strip()), ("", ""))

    _, insecure = found("WANDB_INSECURE_DISABLE_SSL", setting="insecure_disable_ssl")
    where, text = found("WANDB_X_EXTRA_HTTP_HEADERS", "WANDB__EXTRA_HTTP_HEADERS", setting="x_extra_http_headers")
    headers = {name: _header(where, name, value) for name, value in _object(where, text).items()}
    where, text = found("WANDB_X_PROXIES", "WANDB__PROXIES", setting="x_proxies")
    proxies = {scheme: _proxy(where, scheme, proxy) for scheme, proxy in _object(where, text).items()}
    for scheme in ("http", "https"):
        where, proxy = found(f"WANDB_{scheme.upper()}_PROXY", setting=f"{scheme}_proxy")
        if proxy:
            proxies[scheme] = _proxy(where, scheme, proxy)
    return Network(
        insecure.lower() not in ("1", "true", "t", "yes", "y", "on"),
        env.get("SSL_CERT_FILE") or env.get("SSL_CERT_DIR") or None,
        headers,
        proxies,
    )


def _object(where: str, text: str) -> dict[str, str]:
    """A JSON object of texts."""
    if not text:
        return {}
    form = UsageError(f"{where} is not a JSON object of texts", hint='write {"name": "value"}')
    try:
        found = json.loads(text)
    except ValueError:
        raise form from None  # its text would be quoted otherwise, and may hold a secret
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise form
    return found


def _header(where: str, name: str, value: str) -> str:
    if not _HEADER.fullmatch(name) or not value.isascii() or re.search(r"[\x00-\x1f\x7f]", value):
        raise UsageError(f"{where} has something that cannot be a header of HTTP", hint="check names and values")
    return value


def _proxy(where: str, scheme: str, text: str) -> str:
    try:
        proxy = urlsplit(text)
        good = proxy.scheme in ("http", "https", "socks5", "socks5h", "socks4") and proxy.hostname and (proxy.port or 1)
    except ValueError:
        good = False
    if scheme not in ("http", "https") or not good:
        raise UsageError(f"{where} is not the address of a proxy", hint="such as http://proxy.example.com:3128")
    return text.rstrip("/")
