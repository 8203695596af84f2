"""Projects."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import query
from ..freshness import Question
from ..library import who
from .pages import Pages
from .refusals import PROJECT, refused
from .run import _stamp

if TYPE_CHECKING:
    from ..library import Mirror
    from .sweeps import Sweeps


class Projects(Pages["Project"]):
    """The projects of an entity."""

    def __init__(self, mirror: Mirror, entity: str, per_page: int = 200) -> None:
        super().__init__(self._find, per_page)
        self.entity, self._mirror = entity, mirror

    def _find(self) -> list[Project]:
        found = query.list_projects(self._mirror.ask(Question(entity=self.entity)), entity=self.entity, limit=None)
        return [Project(self._mirror, self.entity, one["name"], one) for one in found]

    @property
    def length(self) -> None:
        """The SDK does not say; `len` does."""
        return

    def __repr__(self) -> str:
        return f"<Projects {self.entity}>"


class Project:
    """A project; it is looked up when more than its name is asked for."""

    def __init__(self, mirror: Mirror, entity: str, name: str, record: Mapping[str, Any] | None = None) -> None:
        self._mirror, self._record = mirror, record
        self.entity, self.name = entity, name

    def _found(self) -> Mapping[str, Any]:
        if self._record is None:
            cache = self._mirror.ask(Question(entity=self.entity))
            query.find_project(cache, f"{self.entity}/{self.name}")  # raises NotFound
            some = query.list_projects(cache, entity=self.entity, limit=None)
            self._record = next(one for one in some if one["name"] == self.name)
        return self._record

    @property
    def path(self) -> list[str]:
        return [self.entity, self.name]

    @property
    def url(self) -> str:
        """The project's page."""
        found = who.login(self._mirror.config)
        page = f"{found.app_url}/{self.entity}/{self.name}" if found else self._found()["url"]
        if page is None:
            raise refused("page of a local project", f"wandb.Api().project({self.name!r}).url")
        return f"{page}/workspace"

    @property
    def created_at(self) -> str | None:
        """As the server writes it, in UTC."""
        return _stamp(self._found()["created_at"])

    @property
    def updated_at(self) -> str | None:
        """When it last changed on the server."""
        return _stamp(self._found()["updated_at"])

    @property
    def description(self) -> str | None:
        found: str | None = self._found()["description"]
        return found

    def sweeps(self, per_page: int = 50) -> Sweeps:
        """Its sweeps, the first made first."""
        from .runs import Runs
        from .sweeps import Sweeps

        return Sweeps(self._mirror, self.entity, self.name, Runs, per_page)

    def __getattr__(self, name: str) -> Any:
        if name == "createdAt":
            return self.created_at
        if name in ("entityName", "entity_name"):
            return self.entity
        if name in PROJECT:
            raise refused(f"{name} of a project", f"wandb.Api().project({self.name!r}).{name}")
        raise AttributeError(f"{self!r} has no attribute {name!r}")

    def to_html(self, height: int = 420, hidden: bool = False) -> str:
        """A line with a link to its page."""
        return f'<a href="{html.escape(self.url)}">{html.escape(repr(self))}</a>'

    def __repr__(self) -> str:
        return f"<Project {self.entity}/{self.name}>"
