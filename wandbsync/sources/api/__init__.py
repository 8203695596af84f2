"""The W&B server as a source; the only part of wandbsync that talks to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .credentials import Login, find_login

if TYPE_CHECKING:
    from .client import Api

HASTE = {"timeout": (4.0, 60.0), "attempts": 3, "patience": 30.0}  # while somebody waits for an answer


def connect(login: Login, *, in_flight: int = 1, downloads: int = 4, hasty: bool = False) -> Api:
    """The server that a login is for; nothing is asked yet. `hasty`: rather fail soon than wait long."""
    from .budget import Budget
    from .client import Api
    from .transport import Transport

    budget = Budget(in_flight=in_flight, downloads=downloads)
    return Api(login, Transport(login, budget, **HASTE) if hasty else Transport(login, budget))  # type: ignore[arg-type]


__all__ = ["Login", "connect", "find_login"]
