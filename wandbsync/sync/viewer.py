"""Whose API key it is: kept whenever a server says it, so that it is known with the server gone too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..cache import Cache

if TYPE_CHECKING:
    from ..sources.api.client import Viewer


def note_viewer(cache: Cache, base_url: str, viewer: Viewer, at: float) -> None:
    """Keep whose key it is, and the default entity, if the last to be noted was another."""
    said = {"username": viewer.username, "entity": viewer.entity, "teams": viewer.teams}
    for kind, text in (("viewer", json.dumps(said)), ("entity", str(viewer.entity or viewer.username))):
        known = {where: when for where, when in cache.sources(kind).items() if where.startswith(f"{base_url} ")}
        if not known or max(known, key=lambda where: known[where]) != f"{base_url} {text}":
            cache.synced(kind, f"{base_url} {text}", at)


def is_noted(cache: Cache, base_url: str) -> bool:
    """Whether it is known whose the key for a server is."""
    return any(where.startswith(f"{base_url} ") for where in cache.sources("viewer"))
