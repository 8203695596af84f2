"""Whose API key it is: asked of a server once and kept, so that it is known with the server gone too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..cache import Cache

if TYPE_CHECKING:
    from ..sources.api.client import Api, Viewer


def note_viewer(cache: Cache, api: Api, at: float) -> Viewer:
    """Ask whose key it is, and keep it with the default entity. Raises what the server answers."""
    one = api.viewer()
    said = {"username": one.username, "entity": one.entity, "teams": one.teams}
    cache.synced("viewer", f"{api.login.base_url} {json.dumps(said)}", at)
    cache.synced("entity", f"{api.login.base_url} {one.entity or one.username}", at)
    return one


def is_noted(cache: Cache, base_url: str) -> bool:
    """Whether it is known whose the key for a server is."""
    return any(where.startswith(f"{base_url} ") for where in cache.sources("viewer"))
