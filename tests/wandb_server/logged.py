"""The rows that `sdk.py full` logs, but for its media."""

from __future__ import annotations

import math
from typing import Any

EXTREMES = (math.nan, math.inf, -math.inf, 5e-324, 1e22)

ROWS: list[dict[str, Any]] = [
    {
        "loss": 1 / (i + 1),
        "whole": float(i),
        "odd": EXTREMES[i % 5],
        "flag": i % 2 == 0,
        "big": 2**53 + 1 + i,
        "text": f'step {i} "q" ü',
        "nested": {"a": {"b": i / 7}},
        "list": [1, 2.5, None],
        **({"rare": i} if i % 100 == 0 else {}),
    }
    for i in range(2000)
]
