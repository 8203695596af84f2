"""What was published last: a hint, to be lost at any time, so that what has not changed need not be looked at."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any

from .. import files
from ..cache import Cache
from .delta import Lake
from .here import ProjectHere


class Memory:
    """What was published last, so that what has not changed need not be looked at: a hint, to be lost at any time."""

    def __init__(self, cache: Cache, lake: Lake) -> None:
        name = hashlib.sha256(str(lake.address).encode()).hexdigest()[:16]
        self.path = cache.folder / "lake" / f"{name}.json"
        table = lake.table("runs")
        self.lake = "" if table is None else table.metadata().id  # of another lake at this address, nothing is known
        self._runs = lake
        try:
            known = json.loads(self.path.read_text())
        except (OSError, ValueError):
            known = {}
        self.known: dict[str, Any] = known["projects"] if known.get("lake") == self.lake else {}

    def knows(self, project: ProjectHere) -> bool:
        return self.known.get(json.dumps(project.key)) == [project.newest, project.runs]

    def note(self, project: ProjectHere) -> None:
        table = self._runs.table("runs")
        if table is None:
            return
        self.lake = table.metadata().id
        self.known[json.dumps(project.key)] = [project.newest, project.runs]
        with contextlib.suppress(OSError):  # a full disk costs a look
            content = json.dumps({"lake": self.lake, "projects": self.known}).encode()
            files.write(self.path, content, private=True)
