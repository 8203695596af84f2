"""Signed URLs: who has one may read or write one thing for a while, without a key."""

from __future__ import annotations

import hashlib
import hmac
import os
from urllib.parse import parse_qs, quote, urlsplit

from .store import Clock


class Signer:
    """Makes and checks the URLs of `base`; a URL for GET is none for PUT or HEAD, as with S3."""

    def __init__(self, base: str, clock: Clock, lifetime: float) -> None:
        self.base, self.clock, self.lifetime = base, clock, lifetime
        self._secret = os.urandom(16)

    def expire_all(self) -> None:
        """Void every URL handed out so far."""
        self._secret = os.urandom(16)

    def url(self, *parts: str, method: str = "GET") -> str:
        path = "/storage/" + "/".join(quote(part, safe="/" if part is parts[-1] else "") for part in parts)
        expires = str(int(self.clock.now().timestamp() + self.lifetime))
        return f"{self.base}{path}?expires={expires}&signature={self._sign(method, path, expires)}"

    def accepts(self, method: str, target: str) -> bool:
        """Whether a request for a path with a query is covered by a signature that still holds."""
        url = urlsplit(target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        expires, signature = query.get("expires", "0"), query.get("signature", "")
        fresh = expires.isdigit() and int(expires) >= self.clock.now().timestamp()
        return fresh and hmac.compare_digest(signature, self._sign(method, url.path, expires))

    def _sign(self, method: str, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{method} {path} {expires}".encode(), hashlib.sha256).hexdigest()
