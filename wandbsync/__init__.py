"""Mirror Weights & Biases runs into a local cache; ask it for runs, metrics and complete histories, offline.

    import wandbsync

    mirror = wandbsync.open()
    table = mirror.history("entity/project/run_id", ["loss"])  # a pyarrow.Table

`Api` is `wandb.Api` for scripts that read: change the import, and they run from the cache.
Importing this costs next to nothing: what is heavy is imported when it is used.
"""

from __future__ import annotations

from ._version import __version__

TYPE_CHECKING = False  # `typing` takes as long to import as all of the rest
if TYPE_CHECKING:
    from typing import Any

    from .dropin import Api
    from .errors import (
        CacheBusy,
        CacheError,
        NotFound,
        NothingCached,
        NotMirrored,
        NotPermitted,
        NotSignedIn,
        RateLimited,
        ServerError,
        Unreachable,
        UsageError,
        WandbsyncError,
    )
    from .library import Mirror, connect, open

__all__ = [
    "Api",
    "CacheBusy",
    "CacheError",
    "Mirror",
    "NotFound",
    "NotMirrored",
    "NotPermitted",
    "NotSignedIn",
    "NothingCached",
    "RateLimited",
    "ServerError",
    "Unreachable",
    "UsageError",
    "WandbsyncError",
    "__version__",
    "connect",
    "open",
]

_HOMES = {"Api": "dropin", "Mirror": "library", "connect": "library", "open": "library"}  # the others are in errors


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
