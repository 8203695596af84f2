"""How deep a value may be nested: deeper than anybody means, and than JSON readers can follow."""

from __future__ import annotations

import re

NESTING = 100  # levels

_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])', re.DOTALL)


def is_deep(text: str) -> bool:
    """Whether a JSON text is nested deeper than NESTING; such a value is kept as the text it is."""
    if text.count("[") + text.count("{") <= NESTING:
        return False
    depth = 0
    for found in _BRACKETS.finditer(text):
        depth += 1 if found[1] else -1 if found[2] else 0
        if depth > NESTING:
            return True
    return False
