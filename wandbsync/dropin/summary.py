"""A run's summary, read as the SDK's `HTTPSummary` is: like a dict, or by attributes, nested ones alike."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping
from typing import Any

from .refusals import refused

CALL = "wandb.Api().run(path).summary.update(...)"


class Summary(Mapping[str, Any]):
    """What the last values are; `_json_dict` is the plain dict."""

    def __init__(self, values: dict[str, Any]) -> None:
        object.__setattr__(self, "_json_dict", values)

    def __getitem__(self, key: str) -> Any:
        value = self._json_dict[key.strip() if isinstance(key, str) else key]
        return Summary(value) if isinstance(value, dict) else value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._json_dict)

    def __len__(self) -> int:
        return len(self._json_dict)

    def keys(self) -> KeysView[str]:
        values: dict[str, Any] = self._json_dict
        return values.keys()

    def items(self) -> ItemsView[str, Any]:
        return ItemsView(self)

    def __eq__(self, other: object) -> bool:
        return bool(self._json_dict == (other._json_dict if isinstance(other, Summary) else other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._json_dict)

    def __setitem__(self, key: str, value: Any) -> None:
        raise refused("way to write a summary", CALL)

    def __delitem__(self, key: str) -> None:
        raise refused("way to write a summary", CALL)

    def __setattr__(self, name: str, value: Any) -> None:
        raise refused("way to write a summary", CALL)

    def update(self, key_vals: Mapping[str, Any] | None = None, overwrite: bool = True) -> None:
        raise refused("way to write a summary", CALL)
