"""Names as they can be drawn: with the fonts that are there, in the room that is there."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

from matplotlib import font_manager

from .plan import MISSING

# What DejaVu Sans lacks is looked for in these, where they are installed.
_FALLBACKS = (
    *(f"Noto Sans {kind}" for kind in ("CJK SC", "CJK JP", "CJK KR", "CJK TC", "SC", "JP", "KR", "Devanagari", "Thai")),
    *("Source Han Sans SC", "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("Heiti SC", "Heiti TC", "STHeiti", "Songti SC", "SimHei", "SimSun", "Microsoft JhengHei", "Meiryo", "MS Gothic"),
    *("Source Han Sans CN", "Source Han Sans JP", "Source Han Sans KR", "Sarasa Gothic SC", "LXGW WenKai"),
    *("AR PL UMing CN", "AR PL UKai CN", "VL Gothic", "UnDotum", "Noto Serif CJK SC", "Noto Serif CJK JP"),
    *("IPAGothic", "IPAexGothic", "TakaoGothic", "NanumGothic", "Arial Unicode MS", "Unifont"),
)
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it warns of each font without a bold face
_AFTER_SEPARATOR = re.compile(r"(?<=[-_/\s,;|])(?<!\de-)(?=.)")  # but not inside 1e-5


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
    if name.isascii() and name.isprintable():
        return name  # DejaVu Sans has all of that: its table need not be read
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


def told_apart(names: Sequence[str], ids: Sequence[str], room: float, width: Callable[[str], float]) -> list[str]:
    """Names, or if some do not fit into `room`, what differs in them; with their ids where that looks the same."""
    if len(names) < 2 or all(width(name) <= room for name in names):
        return [shorten(name, room, width) for name in names]
    parts = differing(names)
    shown = [shorten(part, room, width) for part in parts]
    often = Counter(shown)
    for i, (part, run_id) in enumerate(zip(parts, ids, strict=True)):
        if often[shown[i]] > 1 and run_id:
            tail = f" ({shorten(run_id, room / 2.0, width)})"
            shown[i] = shorten(part, room - width(tail), width) + tail
    return shown


def differing(names: Sequence[str]) -> list[str]:
    """Names without the words that all of them begin with, end with or have at one place; "…" stands for those."""
    if len(set(names)) == 1:
        return list(names)
    words = [_AFTER_SEPARATOR.split(name) for name in names]
    fewest = min(map(len, words))
    head = _common(words, fewest - 1)
    tail = _common([line[::-1] for line in words], fewest - 1 - head)
    rest = [line[head : len(line) - tail] for line in words]
    if len(set(map(len, rest))) == 1:
        same = [len(set(column)) == 1 for column in zip(*rest, strict=True)]
        rest = [["…" if common else word for word, common in zip(line, same, strict=True)] for line in rest]
    rest = [["…"] * (head > 0) + line + ["…"] * (tail > 0) for line in rest]
    return [re.sub(r"[-_/\s,;|]*…+", "…", "".join(line)) for line in rest]


def _common(words: Sequence[Sequence[str]], most: int) -> int:
    """With how many words, at most `most`, all lines begin."""
    count = 0
    while count < most and len({line[count] for line in words}) == 1:
        count += 1
    return count


def _cut(name: str, kept: int) -> str:
    head = (kept + 1) // 2
    return f"{name[:head]}…{name[len(name) - (kept - head) :]}"
