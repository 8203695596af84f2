"""The W&B server as a source; the only part of wandbsync that talks to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .credentials import Login, find_login

if TYPE_CHECKING:
    from .client import Api


@dataclass(frozen=True, slots=True)
class Manner:
    """How long to go on when a server does not answer as it should; see Transport."""

    timeout: tuple[float, float] = (10.0, 120.0)
    attempts: int = 8
    patience: float = 600.0


HASTE = Manner((4.0, 60.0), 3, 30.0)  # somebody waits for an answer


def connect(login: Login, *, in_flight: int = 1, downloads: int = 4, manner: Manner | None = None) -> Api:
    """The server that a login is for; nothing is asked yet."""
    from .budget import Budget
    from .client import Api
    from .transport import Transport

    budget = Budget(in_flight=in_flight, downloads=downloads)
    how = manner or Manner()
    return Api(login, Transport(login, budget, timeout=how.timeout, attempts=how.attempts, patience=how.patience))


__all__ = ["HASTE", "Login", "Manner", "connect", "find_login"]
