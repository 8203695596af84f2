"""People: whose a run is, and whose key it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .refusals import USER, refused

if TYPE_CHECKING:
    from ..sources.api.client import Viewer


class User:
    """Somebody with an account."""

    def __init__(self, username: str, name: str | None = None) -> None:
        self.username, self.name = username, name or username

    def __getattr__(self, name: str) -> Any:
        if name in USER:
            raise refused(f"{name} of a user", f"wandb.Api().viewer.{name}")
        raise AttributeError(f"{self!r} has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<User {self.username}>"


class Owner(User):
    """Whose API key it is."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__(viewer.username)
        self.entity = viewer.entity or viewer.username
        self.teams = list(viewer.teams)
