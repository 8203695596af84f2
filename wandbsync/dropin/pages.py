"""Lists as the SDK hands them out: read when first used, indexed, sliced, counted, and gone through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class Pages(Generic[T]):
    """`for`, `[i]`, `[a:b]`, `len` and `next`, as the SDK's paginators have them. A `for` begins anew each time."""

    def __init__(self, read: Callable[[], Sequence[T]], per_page: int) -> None:
        self._read = read
        self._objects: list[T] | None = None
        self.per_page = per_page
        self.index = -1

    @property
    def objects(self) -> list[T]:
        """All of them."""
        if self._objects is None:
            self._objects = list(self._read())
        return self._objects

    @property
    def more(self) -> bool:
        """Whether something is still to be read."""
        return self._objects is None

    def __len__(self) -> int:
        return len(self.objects)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self.objects[index]

    def __iter__(self) -> Iterator[T]:
        self.index = -1
        return self

    def __next__(self) -> T:
        self.index += 1
        if self.index >= len(self.objects):
            raise StopIteration
        return self.objects[self.index]

    next = __next__


def frame(rows: Sequence[dict[str, Any]]) -> Any:
    """Rows as a pandas.DataFrame; as they are, if there is no pandas, as the SDK does."""
    try:
        import pandas as pd
    except ImportError:
        import logging

        logging.getLogger("wandbsync").warning("there is no pandas here: call history with pandas=False")
        return rows
    return pd.DataFrame.from_records(rows)
