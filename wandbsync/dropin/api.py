"""`Api`: where scripts begin."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import NotFound, UsageError
from ..freshness import Question
from ..library import open as open_mirror
from ..library import who
from ..model import RunRef
from .projects import Project, Projects
from .refusals import API, refused
from .run import Run, RunNotFoundError, look_up
from .runs import Runs
from .sweeps import Sweep, find_sweep
from .users import Owner


class Api:
    """`wandb.Api` for scripts that read: the same calls, answered from the cache, which is brought up to date as the
    commands do it.

    `overrides` may name `entity`, `project` and `base_url`, as for the SDK; `timeout` is not needed. Ours are
    `cache_dir`, `offline` (never ask the server) and `max_age` (how old an answer may be), as for `wandbsync.open`.

    Raises UsageError if the settings are wrong. What only W&B itself has or does raises NotMirrored, which names the
    call of the SDK for it.

    >>> import wandbsync
    >>> api = wandbsync.Api(offline=True)
    >>> runs = api.runs("local/demo", {"config.lr": {"$gt": 0.001}}, order="-summary_metrics.loss")
    >>> [(run.id, run.config["lr"], run.summary["loss"]) for run in runs]
    [('eager', 0.1, 0.25), ('steady', 0.01, 0.125)]
    >>> api.run("local/demo/eager").history(keys=["loss"], pandas=False)[-1]
    {'_step': 3, 'loss': 0.25}
    """

    def __init__(
        self,
        overrides: Mapping[str, Any] | None = None,
        timeout: int | None = None,
        api_key: str | None = None,
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        offline: bool = False,
        max_age: float | str | None = None,
    ) -> None:
        if api_key:
            raise UsageError(
                "wandbsync takes the API key from where `wandb login` puts it", hint="or set WANDB_API_KEY"
            )
        chosen = dict(overrides or {})
        mirror = open_mirror(cache_dir, offline, max_age)
        if url := chosen.get("base_url"):
            mirror.config = replace(mirror.config, server_url=url)
        self.settings: dict[str, Any] = {
            "entity": mirror.config.default_entity,
            "project": os.environ.get("WANDB_PROJECT") or None,
            "base_url": mirror.config.server_url,
        } | chosen
        self._mirror = mirror
        self._runs: dict[str, Any] = {}
        self._projects: dict[str, Projects] = {}

    @property
    def viewer(self) -> Owner:
        """Whose API key it is; asked once, then known offline too. Raises NotSignedIn, Unreachable, UsageError."""
        return Owner(who.viewer(self._mirror.cache, self._mirror.config, offline=self._mirror.wanted.offline))

    @property
    def default_entity(self) -> str | None:
        """Whose projects are meant where nobody is named."""
        return who.default_entity(self._mirror.cache, self._mirror.config, offline=self._mirror.wanted.offline)

    @property
    def user_agent(self) -> str:
        from .. import __version__

        return f"wandbsync {__version__}"

    def flush(self) -> None:
        """Forget which runs were handed out; the next ones are looked up anew."""
        self._runs, self._projects = {}, {}
        self._mirror.forget()

    def projects(self, entity: str | None = None, per_page: int = 200) -> Projects:
        """The projects of an entity. Raises ValueError if none is named and there is no default one."""
        entity = self._entity(entity)
        if entity not in self._projects:
            self._projects[entity] = Projects(self._mirror, entity, per_page)
        return self._projects[entity]

    def project(self, name: str, entity: str | None = None) -> Project:
        """A project by its name."""
        return Project(self._mirror, self._entity(entity), name)

    def runs(
        self,
        path: str | None = None,
        filters: Mapping[str, Any] | None = None,
        order: str = "+created_at",
        per_page: int = 50,
        include_sweeps: bool = False,
        lazy: bool = True,
    ) -> Runs:
        """The runs of "entity/project" that fit W&B's `filters`, in an `order`; see `Mirror.runs` for both.

        Found when first looked at; UsageError then for a filter that cannot be, ValueError for no such project.
        """
        parts = [] if path is None else path.split("/", 1)
        project = parts[-1] if parts else self.settings["project"] or "uncategorized"
        entity = parts[0] if len(parts) == 2 else self._entity(None)
        key = (path or "") + str(filters or {}) + str(order)
        if key not in self._runs:
            self._runs[key] = Runs(self._mirror, entity, project, filters, order, per_page)
        found: Runs = self._runs[key]
        return found

    def run(self, path: str = "") -> Run:
        """One run by "entity/project/run_id", "project/run_id" or "run_id", if the settings say the rest.

        Raises ValueError (RunNotFoundError) if there is none.
        """
        entity, project, run_id = self._path(path)
        if path not in self._runs:
            self._runs[path] = self._find(RunRef(entity, project, run_id))
        found: Run = self._runs[path]
        return found

    def _find(self, ref: RunRef) -> Run:
        try:
            cache = self._mirror.ask(Question(f"{ref.entity}/{ref.project}", (ref.run_id,)))
            return Run(self._mirror, *look_up(cache, ref), runs=Runs)
        except NotFound as error:
            raise RunNotFoundError(f"Could not find run {ref}: {error}", hint=error.hint) from error

    def sweep(self, path: str = "") -> Sweep:
        """A sweep by "entity/project/sweep_id", or less if the settings say the rest. Raises ValueError if unknown."""
        return find_sweep(self._mirror, *self._path(path.replace("/sweeps/", "/")), Runs)

    def from_path(self, path: str) -> Project | Run | Sweep:
        """A project, run or sweep by its path."""
        parts = path.strip("/ ").split("/")
        if len(parts) <= 2:
            return self.project(parts[-1], parts[0] if len(parts) == 2 else None)
        if len(parts) == 3 or parts[2].startswith("run"):
            return self.run(path)
        if parts[2].startswith("sweep"):
            return self.sweep(path)
        raise refused(f"{parts[2]}", f"wandb.Api().from_path({path!r})")

    def _entity(self, entity: str | None) -> str:
        entity = entity or self.settings["entity"] or self.default_entity
        if not entity:
            raise ValueError("entity must be passed as a parameter, or set in settings")
        return entity

    def _path(self, path: str) -> tuple[str, str, str]:
        """Entity, project and run id, as the SDK reads them."""
        entity, project, run_id = self.settings["entity"], self.settings["project"], ""
        parts = path.replace("/runs/", "/").strip("/ ").split("/")
        if len(parts) == 3:
            entity, project, run_id = parts
        elif len(parts) == 2 and ":" in parts[1]:
            entity, (project, run_id) = parts[0], parts[1].split(":", 1)
        elif len(parts) == 2:
            project, run_id = parts
        elif len(parts) == 1:
            *some, run_id = parts[0].split(":", 1)
            project = some[0] if some else project
        entity = entity or self.default_entity
        found = [part.strip() if part else part for part in (entity, project, run_id)]
        for part, what in zip(found, (" (missing entity)", " (missing project)", ""), strict=True):
            if not part:
                raise ValueError(f"Invalid path: {path!r}{what}")
        return str(found[0]), str(found[1]), str(found[2])

    def __getattr__(self, name: str) -> Any:
        if name in API:
            raise refused(name, f"wandb.Api().{name}(...)")
        raise AttributeError(f"{self!r} has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<wandbsync.Api {self._mirror.config.cache_dir}>"
