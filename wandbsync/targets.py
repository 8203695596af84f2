"""What people call projects and runs on the command line: `entity/project/run`, or the address of its page. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from .errors import UsageError

FORMS = "write entity/project, entity/project/run_id, or project alone"


@dataclass(frozen=True, slots=True)
class Target:
    """A project or a run; the entity may be left open, and * may stand in the names of projects."""

    entity: str | None
    project: str
    run: str | None = None
    page: str | None = None  # the address it was given by, which is a page of one server

    @property
    def is_pattern(self) -> bool:
        return any(char in self.project for char in "*?[")

    def __str__(self) -> str:
        return "/".join(part for part in (self.entity, self.project, self.run) if part)


def parse(text: str) -> Target:
    """`p`, `e/p`, `e/p/r`, `e/p/runs/r`, or the address of such a page. Raises UsageError."""
    path = text.strip()
    if "://" in path:
        path = unquote(urlsplit(path).path)
        parts = path.strip("/").split("/")
        if len(parts) > 2 and parts[0] == "wandb" and "runs" not in parts[:3]:
            parts = parts[1:]  # W&B's newer pages are below /wandb
        if len(parts) < 2:
            raise UsageError(f"{text} is not the page of a project or run", hint=FORMS)
    else:
        parts = path.strip("/").split("/")
    if len(parts) >= 4 and parts[2] == "runs":
        parts = [*parts[:2], parts[3]]
    elif len(parts) > 2 and "://" in text:
        parts = parts[:2]  # a tab of the project's page
    if not 1 <= len(parts) <= 3 or not all(part.strip() for part in parts):
        raise UsageError(f"{text!r} is not a project or run", hint=FORMS)
    names = [part.strip() for part in parts]
    page = text.strip() if "://" in text else None
    if len(names) == 1:
        return Target(None, names[0])
    return Target(names[0], names[1], names[2] if len(names) > 2 else None, page)
