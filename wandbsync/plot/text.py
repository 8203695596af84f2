"""Names as they can be drawn, with the fonts that are there."""

from __future__ import annotations

import logging
import unicodedata
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
