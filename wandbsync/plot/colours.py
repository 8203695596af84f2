"""Which run has which colour: the same one in every plot, remembered beside the cache's pictures.

    CACHE/derived/plots/colours.json   project, or project and group -> run or group -> its place in `style`'s colours

A run gets its place when it is first drawn: one that no other line of that figure has, of these the one that is used
least. It keeps it, whoever is drawn beside it later; should two lines of a figure then have one colour, they differ by
their dashes. A group of runs has its own. Nothing depends on the file but colours; it may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import files
from ..folder.metadata import locked

NAME = "colours.json"
PLACES = 10
KEPT = 1_000  # of a scope, and scopes; the oldest are forgotten


def assign(known: Mapping[str, int], drawn: Sequence[str]) -> dict[str, int]:
    """A place for each of what is drawn: that which it has, or a new one."""
    found = {name: known[name] for name in drawn if name in known}
    used = Counter(known.values())
    for name in drawn:
        if name not in found:
            here = Counter(found.values())
            found[name] = min(range(PLACES), key=lambda place: (here[place], used[place], place))
            used[found[name]] += 1
    return {name: found[name] for name in drawn}


def remembered(folder: Path | None, scope: str, drawn: Sequence[str]) -> dict[str, int]:
    """The places of what is drawn among all of its scope (the runs of a project), kept if they can be.

    `folder` None: for this time only.
    """
    if folder is None:
        return assign({}, drawn)
    known = _read(folder).get(scope, {})
    places = assign(known, drawn)
    if any(name not in known for name in drawn):
        with contextlib.suppress(OSError):  # a cache that cannot be written is no reason not to draw
            files.private_folder(folder)
            with locked(folder):
                scopes = _read(folder)
                known = scopes.pop(scope, {})
                places = assign(known, drawn)
                scopes[scope] = dict(list((known | places).items())[-KEPT:])
                content = json.dumps(dict(list(scopes.items())[-KEPT:])).encode()
                files.write(folder / NAME, content, private=True)
    return places


def _read(folder: Path) -> dict[str, dict[str, int]]:
    """What is remembered, as far as it is well-formed."""
    try:
        found = json.loads((folder / NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    scopes = found.items() if isinstance(found, dict) else ()
    return {
        scope: {name: place for name, place in names.items() if type(place) is int and 0 <= place < PLACES}
        for scope, names in scopes
        if isinstance(names, dict)
    }
