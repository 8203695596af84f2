"""Names as they can be drawn: with the fonts that are there, in the room that is there."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache

from matplotlib import font_manager

MISSING = "□"  # stands for a character no font at hand can draw

# What DejaVu Sans lacks is looked for in these, where they are installed.
_FALLBACKS = (
    *(f"Noto Sans {kind}" for kind in ("CJK SC", "CJK JP", "CJK KR", "CJK TC", "SC", "JP", "KR", "Devanagari", "Thai")),
    *("Source Han Sans SC", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("IPAGothic", "IPAexGothic", "TakaoGothic", "NanumGothic", "Arial Unicode MS", "Unifont"),
)


@cache
def families() -> list[str]:
    """The font families to draw with, in order of preference; all of them exist."""
    there = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _FALLBACKS if name in there)]


@cache
def _characters(family: str) -> frozenset[int]:
    """What a family can draw both plain and bold."""
    sets = []
    for weight in ("normal", "bold"):
        path = font_manager.findfont(font_manager.FontProperties(family=[family], weight=weight))
        sets.append(frozenset(font_manager.get_font(path).get_charmap()))
    return sets[0] & sets[1]


def drawable(name: str) -> str:
    """`name` on one line, without characters that have no shape or that no font at hand can draw."""
    chars = []
    for char in unicodedata.normalize("NFC", name):
        kind = unicodedata.category(char)
        if kind in ("Cc", "Zl", "Zp"):
            chars.append(" ")
        elif kind == "Cf":  # joiners, direction marks
            continue
        elif char == " " or any(ord(char) in _characters(family) for family in families()):
            chars.append(char)
        else:
            chars.append(MISSING)
    return "".join(chars)


def shorten(name: str, room: float, width: Callable[[str], float]) -> str:
    """`name`, or as much of its beginning and end as fits into `room` (names of a sweep differ at either end)."""
    if width(name) <= room:
        return name
    fits, too_long = 0, len(name)  # characters kept
    while too_long - fits > 1:
        kept = (fits + too_long) // 2
        if width(_cut(name, kept)) <= room:
            fits = kept
        else:
            too_long = kept
    return _cut(name, fits)


def _cut(name: str, kept: int) -> str:
    head = (kept + 1) // 2
    return f"{name[:head]}…{name[len(name) - (kept - head) :]}"
