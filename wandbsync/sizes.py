"""Bytes as people write them: 500MB, 20GB, 1.5GiB."""

from __future__ import annotations

import re

UNITS = ("B", "kB", "MB", "GB", "TB")
_FACTORS: dict[str, int] = {unit.lower(): 1000**n for n, unit in enumerate(UNITS)} | {
    f"{letter}ib": 1024**n for n, letter in enumerate("kmgt", 1)
}


def parse_size(text: object) -> int | None:
    """`500MB`, `20GB` or `1.5GiB` as bytes, `unlimited` as None; ValueError for anything else.

    A number alone is none: whoever writes 20 may well mean gigabytes.
    """
    if isinstance(text, str):
        if text.strip().lower() == "unlimited":
            return None
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?b)\s*", text.lower())
        if match and match[2] in _FACTORS:
            from decimal import Decimal

            return round(Decimal(match[1]) * _FACTORS[match[2]])
    raise ValueError(f"{text!r} is not a size such as 500MB, 20GB, or unlimited")


def show_size(size: float) -> str:
    """Bytes for people, to one digit."""
    for unit in UNITS[:-1]:
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} {UNITS[-1]}"


def exact_size(size: int) -> str:
    """Bytes the way `parse_size` reads them, none lost."""
    for n in range(len(UNITS) - 1, -1, -1):
        if size >= 1000**n and size % 1000**n == 0:
            return f"{size // 1000**n}{UNITS[n]}"
    return f"{size}B"
