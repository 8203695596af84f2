"""Misbehaviour on demand: scripted faults per operation, and a rate limit that really limits."""

from __future__ import annotations

import fnmatch
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass
class Fault:
    """What happens to the requests of an operation: to `times` of them (None: to all), after `skip` good ones.

    With `where` only to those that have these GraphQL variables, as {"run": "abc123"}. Without a status the request is
    served, but late (`latency`), byte by byte (`drip`: seconds between two), cut short (`truncate`: bytes of the body
    let through) or with its connection reset before or after the work was done.
    """

    operation: str
    times: int | None = 1
    skip: int = 0
    latency: float = 0.0
    drip: float = 0.0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b'{"error":"scripted fault"}'
    reset: Literal["before", "after"] | None = None
    truncate: int | None = None
    where: Mapping[str, Any] = field(default_factory=dict)
    hits: int = 0

    def strikes(self, operation: str, variables: Mapping[str, Any]) -> bool:
        """Whether this request is one of them; counts it."""
        if not fnmatch.fnmatchcase(operation, self.operation) or self.times == self.hits:
            return False
        if any(variables.get(name) != value for name, value in self.where.items()):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True


class Faults:
    """The faults in force; of several for one operation the first that has something left strikes."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, operation: str, variables: Mapping[str, Any]) -> Fault | None:
        with self._lock:
            return next((fault for fault in self._faults if fault.strikes(operation, variables)), None)


class RateLimit:
    """A token bucket: `burst` requests at once, then `rate` a second; its headers go on every answer it covers."""

    def __init__(self, operation: str, rate: float, burst: int, *, retry_after: bool) -> None:
        self.operation, self.rate, self.burst, self.retry_after = operation, rate, burst, retry_after
        self._tokens, self._at = float(burst), time.monotonic()
        self._lock = threading.Lock()
        self.refused = 0

    def covers(self, operation: str) -> bool:
        return fnmatch.fnmatchcase(operation, self.operation)

    def take(self) -> tuple[bool, dict[str, str]]:
        """Whether a request may pass, and the headers that say so."""
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
            self._at = now
            allowed = self._tokens >= 1
            self._tokens -= allowed
            self.refused += not allowed
            reset = (self.burst - self._tokens) / self.rate
            headers = {"RateLimit-Limit": str(self.burst), "RateLimit-Remaining": str(int(self._tokens))}
            headers["RateLimit-Reset"] = f"{reset:.3f}" if reset < 1 else str(round(reset))
            if not allowed and self.retry_after:
                headers["Retry-After"] = str(max(1, round((1 - self._tokens) / self.rate)))
            return allowed, headers
