"""Names in little room: what all of them share goes, what tells them apart stays, in whole words if they fit.

imagenet-resnet50-lr=1e-3-seed=0-cosine      lr=1e-3-seed=0       what all begin and end with
imagenet-resnet50-lr=1e-4-seed=1-cosine      lr=1e-4-seed=1       is said once: `shared`
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

Width = Callable[[str], float]

_AFTER_SEPARATOR = re.compile(r"(?<=[-_/\s,;|])(?<!\de-)(?=.)")  # but not inside 1e-5
_NUMBERS = re.compile(r"(?:[\W\d_]|(?<=\d)e(?=[-+\d]))+")
_SEPARATORS = "-_/ \t,;|:"
_PAIRS = {")": "(", "]": "[", "}": "{"}
_SHORT = 12  # characters: of a name that is no longer nothing goes


def told_apart(names: Sequence[str], ids: Sequence[str], room: float, width: Width) -> list[str]:
    """Names within a room, each different from the others if it is possible at all.

    What all share goes first; then what they share at one place in the middle, letters that all begin or end with, and
    at last what does not fit. A run_id stands beside names that are, or have become, the same.
    """
    shown = plain(names, ids)
    told = [len(name) < len(whole) for name, whole in zip(shown, names, strict=True)]
    for way in (without_shared, _without_middle, _without_letters):
        shown = way(shown)
        if all(width(name) <= room for name in shown):
            break
    cut = [shorten(name, room, width) for name in shown]
    often = Counter(cut)
    for i, (name, run_id) in enumerate(zip(shown, ids, strict=True)):
        if (often[cut[i]] > 1 or told[i]) and run_id:
            tail = f" ({shorten(run_id, room / 2.0, width)})"
            cut[i] = shorten(name, room - width(tail), width) + tail
    return cut


def plain(names: Sequence[str], ids: Sequence[str]) -> list[str]:
    """Names without the run_id that some have behind them already."""
    return [name.removesuffix(f" ({run_id})") for name, run_id in zip(names, ids, strict=True)]


def shorten(name: str, room: float, width: Width) -> str:
    """A name, or as many of its first and last words as fit into a room; of a single long word as many letters."""
    if width(name) <= room:
        return name
    words = _AFTER_SEPARATOR.split(name)
    for kept in range(len(words) - 1, 1, -1):
        head, tail = (kept + 1) // 2, kept // 2
        cut = _whole("".join(words[:head]).rstrip(_SEPARATORS) + "…" + "".join(words[len(words) - tail :]))
        if width(cut) <= room:
            return cut
    fits, too_long = 0, len(name)  # characters kept
    while too_long - fits > 1:
        kept = (fits + too_long) // 2
        if width(_cut(name, kept)) <= room:
            fits = kept
        else:
            too_long = kept
    return _cut(name, fits)


def without_shared(names: Sequence[str]) -> list[str]:
    """Names without the words that all of them begin or end with.

    A number that would stand alone keeps the word before it, or after it: seed-3 says what 3 does not.
    """
    words, head, tail = _ends(names)
    if not (head or tail):
        return list(names)
    rest = [_whole("".join(line[head : len(line) - tail])) for line in words]
    return rest if all(rest) else list(names)


def shared(names: Sequence[str]) -> str:
    """What `without_shared` leaves out, with "…" for the rest; "" if that is nothing."""
    words, head, tail = _ends(names)
    if not (head or tail):
        return ""
    first = words[0]
    start, end = "".join(first[:head]), "".join(first[len(first) - tail :]).strip(_SEPARATORS)
    return f"{start}…{end}"


def _ends(names: Sequence[str]) -> tuple[list[list[str]], int, int]:
    """The words of names, and how many of the first and of the last are the same in all and say nothing."""
    words = [_AFTER_SEPARATOR.split(name) for name in names]
    if len(set(names)) < 2 or max(map(len, names)) <= _SHORT:
        return words, 0, 0
    fewest = min(map(len, words))
    head = _common(words, fewest - 1)
    tail = _common([line[::-1] for line in words], fewest - 1 - head)

    def bare() -> bool:
        return any(_NUMBERS.fullmatch("".join(line[head : len(line) - tail])) for line in words)

    for _ in range(2):
        if head and bare():
            head -= 1
    if tail and not head and bare():
        tail -= 1
    return words, head, tail


def _common(words: Sequence[Sequence[str]], most: int) -> int:
    """With how many words, at most `most`, all lines begin."""
    count = 0
    while count < most and len({line[count] for line in words}) == 1:
        count += 1
    return count


def _without_middle(names: Sequence[str]) -> list[str]:
    """Names of equally many words, with "…" for those that are the same in all."""
    words = [_AFTER_SEPARATOR.split(name) for name in names]
    if len(set(names)) < 2 or len(set(map(len, words))) > 1:
        return list(names)
    same = [len(set(column)) == 1 for column in zip(*words, strict=True)]
    lines = [["…" if common else word for word, common in zip(line, same, strict=True)] for line in words]
    return [_whole(re.sub(r"[-_/\s,;|]*…+", "…", "".join(line)).strip("…")) for line in lines]


def _without_letters(names: Sequence[str]) -> list[str]:
    """Names with "…" for the letters that all of them begin, or end, with."""
    if len(set(names)) < 2:
        return list(names)
    shortest = min(map(len, names))
    head = _common(names, shortest)
    tail = _common([name[::-1] for name in names], shortest - head)
    while head and any(name[head - 1].isdigit() for name in names):  # a number stays whole
        head -= 1
    while tail and any(name[len(name) - tail].isdigit() for name in names):
        tail -= 1
    head, tail = (0 if few <= 2 else few for few in (head, tail))
    return ["…" * bool(head) + name[head : len(name) - tail] + "…" * bool(tail) for name in names]


def _whole(name: str) -> str:
    """A piece of a name without separators at its ends and without brackets that are open on one side."""
    opened: list[int] = []
    lonely: set[int] = set()
    for i, char in enumerate(name):
        if char in _PAIRS.values():
            opened.append(i)
        elif char in _PAIRS:
            if opened and name[opened[-1]] == _PAIRS[char]:
                opened.pop()
            else:
                lonely.add(i)
    lonely |= {*opened}
    whole = "".join(char for i, char in enumerate(name) if i not in lonely).strip(_SEPARATORS)
    inside = re.fullmatch(r"\(([^()]*)\)", whole)
    return inside[1] if inside else whole


def _cut(name: str, kept: int) -> str:
    head = (kept + 1) // 2
    return f"{name[:head]}…{name[len(name) - (kept - head) :]}"
