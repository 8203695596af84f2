"""One column of a wide history: what it holds, and its cells while they are being filled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..cache import catalog
from ..model import Kind, logged

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

NUMBERS = 1 << Kind.FLOAT | 1 << Kind.INT | 1 << Kind.BOOL | 1 << Kind.BIGINT
TEXTS = 1 << Kind.JSON | 1 << Kind.BIGINT | 1 << Kind.LINE

INT, FLOAT, BOOL, STRING, JSON, NOTHING = "int64", "float64", "bool", "string", "json", "null"


@dataclass(frozen=True, slots=True)
class Column:
    """What a key becomes."""

    key: str
    kinds: int  # bit 1 << kind for every kind that is in one of the runs
    holds: str  # INT, FLOAT, BOOL, STRING, JSON or NOTHING

    @property
    def type(self) -> pa.DataType:
        import pyarrow as pa

        texts = {STRING: pa.large_string(), JSON: pa.large_string(), NOTHING: pa.null()}
        return texts.get(self.holds) or {INT: pa.int64(), FLOAT: pa.float64(), BOOL: pa.bool_()}[self.holds]


class Cells:
    """One column while it is being filled."""

    def __init__(self, column: Column, size: int, *, repeats: bool) -> None:
        """`size`: how many cells there are; `repeats`: whether a step may have several rows."""
        import numpy as np

        kinds = {INT: np.int64, FLOAT: np.float64, BOOL: np.bool_}
        self.column = column
        self.numbers: NDArray[Any] | None = np.zeros(size, kinds[column.holds]) if column.holds in kinds else None
        self.seen = np.zeros(size, np.bool_)  # cells that have a value
        self.taken = np.zeros(size, np.bool_) if repeats else None  # or None, which was logged too
        self.texts: list[tuple[Ints, pa.Array]] = []

    def put(self, at: slice | Ints, value: Any, kind: Any, text: Any) -> None:
        """Put values into some cells."""
        import numpy as np

        if self.taken is not None:
            self.taken[at] = True
        given = kind != Kind.NULL
        if not given.all():
            at = _numbers(at)[given]
            value, kind, text = value[given], kind[given], text.filter(given) if text is not None else None
        if not len(value):
            return
        self.seen[at] = True
        if self.numbers is None:
            self.texts.append((_numbers(at), self._words(value, kind, text)))
        elif self.column.holds == INT and (big := kind == Kind.BIGINT).any():
            rows = _numbers(at)
            self.numbers[rows[~big]] = value[~big].astype(np.int64)
            self.numbers[rows[big]] = [int(digits) for digits in text.filter(big).to_pylist()]
        else:
            self.numbers[at] = value if self.column.holds == FLOAT else value.astype(self.numbers.dtype)

    def _words(self, value: Any, kind: Any, text: Any) -> pa.Array:
        import pyarrow as pa

        text = text.combine_chunks().cast(pa.large_string())
        text = text.chunk(0) if isinstance(text, pa.ChunkedArray) else text
        if self.column.holds == STRING:
            return text if self.column.kinds & 1 << Kind.LINE else _strings(text)
        if not ((kind != Kind.JSON) & (kind != Kind.BIGINT)).any():
            return text
        cells = zip(kind.tolist(), value.tolist(), text.to_pylist(), strict=True)
        return pa.array(
            [catalog.dump(logged(*cell)) if cell[2] is None else cell[2] for cell in cells], pa.large_string()
        )

    def array(self) -> pa.Array:
        import numpy as np
        import pyarrow as pa

        if self.column.holds == NOTHING:
            return pa.nulls(len(self.seen))
        if self.numbers is not None:
            return pa.array(self.numbers) if self.seen.all() else pa.array(self.numbers, mask=~self.seen)
        if not self.texts:
            return pa.nulls(len(self.seen), pa.large_string())
        words = pa.concat_arrays([text for _, text in self.texts])
        index = np.zeros(len(self.seen), np.int64)
        index[np.concatenate([at for at, _ in self.texts])] = np.arange(len(words))
        return words.take(pa.array(index, mask=~self.seen))


def _numbers(at: Any) -> Any:
    import numpy as np

    return np.arange(at.start, at.stop) if isinstance(at, slice) else at


def _strings(text: pa.Array) -> pa.Array:
    """JSON texts of strings as the strings."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.any(pc.match_substring(text, "\\"), min_count=0).as_py():
        return pc.utf8_slice_codeunits(text, 1, -1)
    return pa.array([_string(one) for one in text.to_pylist()], pa.large_string())


def _string(text: str | None) -> str | None:
    if text is None:
        return None
    string: str = json.loads(text)
    try:
        string.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which Arrow has no room for: as it was sent
        return text
    return string


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where the rows of one stream are among the cells: their ascending steps, from a first cell on."""

    steps: Ints
    first: int
    repeats: bool  # whether a step has several rows

    def cells(self, step: Ints, taken: NDArray[np.bool_] | None) -> slice | Ints:
        """The cells that values of these ascending steps belong to; of several rows of a step, the first not taken."""
        import numpy as np

        if not self.repeats:
            start = int(np.searchsorted(self.steps, step[0]))
            if np.array_equal(self.steps[start : start + len(step)], step):
                return slice(self.first + start, self.first + start + len(step))
            return self.first + np.searchsorted(self.steps, step)
        assert taken is not None
        each, back, counts = np.unique(step, return_inverse=True, return_counts=True)
        base = self.first + np.searchsorted(self.steps, each)
        while (full := taken[base]).any():  # by values that came in an earlier piece
            base[full] += 1
        nth = np.arange(len(step)) - np.repeat(np.cumsum(counts) - counts, counts)
        found: Ints = base[back] + nth
        return found
