"""One run as the SDK's `Run` is read: its record, its history, its files, what it printed."""

from __future__ import annotations

import html
import json
import tempfile
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .. import query
from ..cache import Cache
from ..errors import NotFound, UsageError, WandbsyncError
from ..freshness import Question
from ..library.gaps import tell
from ..model import FIELDS, GOING_ON, HISTORY, SYSTEM, RunRef
from . import history as rows_of
from .console import ConsoleLogs
from .files import File, Files
from .history import HistoryScan, Lines
from .pages import frame
from .refusals import RUN, refused
from .summary import Summary
from .sweeps import Look, Sweep, find_sweep
from .users import User

if TYPE_CHECKING:
    from ..library import Mirror
    from ..model import Fingerprint

INTERNAL = ("_wandb", "wandb_version")


class RunNotFoundError(NotFound, ValueError):
    """There is no such run; a ValueError as in the SDK."""


class Run:
    """A run. What belongs to its record may be changed here, as in a script of the SDK's; `update` then refuses."""

    def __init__(
        self,
        mirror: Mirror,
        record: Mapping[str, Any],
        seen: Fingerprint | None = None,
        own: Mapping[str, Any] | None = None,
        *,
        runs: Look,
    ) -> None:
        """`record` as `query.get_run` gives it; `seen`: what the server listed, None for runs it does not have; `own`:
        what W&B keeps of its own in the summary; `runs`: how a sweep looks for its runs."""
        self._mirror, self._look = mirror, runs
        self._ref = RunRef(record["entity"], record["project"], record["id"])
        self._attrs: dict[str, Any] = {}
        self._metadata: dict[str, Any] | None = None
        self._take(record, seen, own)

    def _take(self, record: Mapping[str, Any], seen: Fingerprint | None, own: Mapping[str, Any] | None) -> None:
        config = {key: value for key, value in record["config"].items() if key not in INTERNAL}
        summary = dict(record["summary_metrics"])
        if own:
            summary["_wandb"] = own
        self._record = record
        self._attrs = {
            **{one.wandb: record[one.in_json] for one in FIELDS if one.wandb},
            "user": {"username": record["username"], "name": record["user_name"]},
            "config": config,
            "summaryMetrics": summary,
            "tags": list(record["tags"]),
            "createdAt": seen.created_at if seen else _stamp(record["created_at"]),
            "heartbeatAt": seen.heartbeat_at if seen else _stamp(record["heartbeat_at"]),
        }
        if seen is not None:
            self._attrs["historyLineCount"] = seen.lines
        self.summary_metrics = summary
        self.summary = Summary(summary)

    def _ask(self, *, rows: bool = False, files: bool = False) -> Cache:
        """The cache, with this run's rows or files fresh enough."""
        project = f"{self._ref.entity}/{self._ref.project}"
        cache = self._mirror.ask(Question(project, (self._ref.run_id,), rows=rows, files=files))
        if rows:
            self._mirror.bring_back(cache, [self._ref])
            tell(cache, [self._ref], [self._ref], self._mirror.say)
        return cache

    @property
    def _named(self) -> Any:
        from ..folder.names import NamedRun

        return NamedRun(self._ref.entity, self._ref.project, self._ref.run_id, self._record["name"])

    # -- its record

    @property
    def id(self) -> str:
        """The run id."""
        return self._ref.run_id

    @property
    def name(self) -> str:
        """The display name."""
        name: str = self._attrs["displayName"]
        return name

    @name.setter
    def name(self, name: str) -> None:
        self._attrs["displayName"] = name

    @property
    def entity(self) -> str:
        return self._ref.entity

    @property
    def project(self) -> str:
        return self._ref.project

    @property
    def username(self) -> str:
        """The entity, as in the SDK, where this is deprecated."""
        return self._ref.entity

    @property
    def sweep_name(self) -> str | None:
        """The id of its sweep."""
        return self._record["sweep_id"]  # type: ignore[no-any-return]

    @property
    def sweep(self) -> Sweep | None:
        """The sweep it belongs to, None if to none. Raises ValueError if the cache does not know that sweep."""
        name = self.sweep_name
        return None if name is None else find_sweep(self._mirror, self.entity, self.project, name, self._look)

    @property
    def user(self) -> User | None:
        """Whose run it is, None where that is not known, as of local runs."""
        username = self._record["username"]
        return None if username is None else User(username, self._record["user_name"])

    @property
    def path(self) -> list[str]:
        """Entity, project and run id, quoted for a URL."""
        return [quote(part, safe="") for part in (self._ref.entity, self._ref.project, self._ref.run_id)]

    @property
    def url(self) -> str:
        """The run's page."""
        known: str | None = self._record["url"]
        if known:
            return known
        entity, project, run_id = self.path
        return f"{self._app_url}/{entity}/{project}/runs/{run_id}"

    @property
    def _app_url(self) -> str:
        from ..library import who

        found = who.login(self._mirror.config)
        if found is None:
            raise UsageError(f"{self._ref} is a local run: it has no page", hint="sign in to say of which server")
        return found.app_url

    def _file_url(self, name: str) -> str:
        from ..library import who

        found = who.login(self._mirror.config)
        if found is None:
            raise refused("server to name a file of", "wandb.Api().run(path).file(name).url")
        return f"{found.base_url}/files/{'/'.join(map(quote, (*self._ref_parts, name)))}"

    @property
    def _ref_parts(self) -> tuple[str, str, str]:
        return self._ref.entity, self._ref.project, self._ref.run_id

    @property
    def system_metrics(self) -> dict[str, Any]:
        """The last value of each of the machine's metrics."""
        found = query.list_metrics(self._ask(rows=True), self._ref, include_system=True)
        return {
            key: rows_of.worded(one["last"]) if isinstance(one["last"], float) else one["last"]
            for key, one in found.items()
            if key.startswith("system.")
        }

    systemMetrics = system_metrics  # noqa: N815 - the SDK's name

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What `wandb-metadata.json` says; without that file, what is known of program, git, python and machine."""
        if self._metadata is None:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "metadata.json"
                    self.file("wandb-metadata.json").fetch(path)
                    self._metadata = json.loads(path.read_text(encoding="utf-8"))
            except (WandbsyncError, ValueError, IndexError):
                known = self._record["metadata"].items()
                return {key: value for key, value in known if key != "define_metric"} or None
        return self._metadata

    @property
    def lastHistoryStep(self) -> int:  # noqa: N802 - the SDK's name
        """The highest step of its history, -1 if there is none."""
        last = query.get_run(self._ask(rows=True), self._ref)["last_step"]
        return -1 if last is None else int(last)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_attrs", "_ref"):
            raise AttributeError(name)
        if name in RUN:
            call = f"wandb.Api().run('{self._ref}').{name}"
            raise refused(f"{name} of a run", call)
        first, *others = name.split("_")
        key = first + "".join(part.title() for part in others)
        for one in (key, name):
            if one in self._attrs:
                return self._attrs[one]
        raise AttributeError(f"{self!r} has no attribute {name!r}")

    def load(self, force: bool = False) -> dict[str, Any]:
        """The record; with `force`, as its source has it now."""
        if force:
            self._refresh()
        return self._attrs

    def load_full_data(self, force: bool = False) -> dict[str, Any]:
        """The same: nothing is left out of a record here."""
        return self.load(force)

    def _refresh(self) -> None:
        from .. import freshness

        project = f"{self._ref.entity}/{self._ref.project}"
        wanted = freshness.Wanted(offline=self._mirror.wanted.offline, refresh=not self._mirror.wanted.offline)
        cache, config = self._mirror.cache, self._mirror.config
        freshness.refresh(cache, config, wanted, Question(project, (self._ref.run_id,)), say=self._mirror.say)
        self._take(*look_up(cache, self._ref))

    def wait_until_finished(self) -> None:
        """Look every five seconds until the run has ended. Offline a run that goes on is an error."""
        while self._attrs["state"] in GOING_ON:
            if self._mirror.wanted.offline:
                raise refused("news of a run that goes on while it is offline", "wandb.Api().run(path)")
            self._refresh()
            if self._attrs["state"] in GOING_ON:
                time.sleep(5)

    # -- its rows

    def _lines(self, keys: list[str] | None, stream: str = HISTORY) -> Lines:
        cache = self._ask(rows=True)
        paths = cache.key_paths(self._ref, stream)
        wanted = None if keys is None else rows_of.known(keys, paths)
        return Lines(query.history(cache, self._ref, wanted, stream=stream), paths, stepped=stream == HISTORY)

    def history(
        self,
        samples: int = 500,
        keys: list[str] | None = None,
        x_axis: str = "_step",
        pandas: bool = True,
        stream: str = "default",
    ) -> Any:
        """Rows of the history, evenly spread if there are more than `samples`; a DataFrame, or a list of dicts.

        With `keys`: those and `x_axis`, of the rows that have a value for each. `stream="system"`: samples of the
        machine. Nothing is left out where `samples` is at least the number of rows.
        """
        if keys is not None and (not isinstance(keys, list) or not all(isinstance(key, str) for key in keys)):
            self._mirror.say("keys must be specified in a list of strings")
            return []
        if keys and stream != "default":
            self._mirror.say("stream must be default when specifying keys")
            return []
        lines = self._lines([x_axis, *keys] if keys else None, HISTORY if stream == "default" else SYSTEM)
        if keys:
            import numpy as np

            found = rows_of.columns(lines.rows(np.arange(len(lines)), rows_of.worded), [x_axis, *keys])
            rows = [found[line] for line in rows_of.sampled(len(found), samples).tolist()]
        else:
            rows = lines.rows(rows_of.sampled(len(lines), samples), rows_of.worded)
        return frame(rows) if pandas else rows

    def scan_history(
        self,
        keys: list[str] | None = None,
        page_size: int = 1_000,
        min_step: int = 0,
        max_step: int | None = None,
        use_cache: bool = True,
    ) -> HistoryScan:
        """Every row from `min_step` to before `max_step`. With `keys`: those and `_step`, of rows that have all.

        None is no value here, as in the SDK.
        """
        if keys is not None and not isinstance(keys, list):
            raise ValueError("keys must be specified in a list")
        if keys and not all(isinstance(key, str) for key in keys):
            raise ValueError("keys argument must be a list of strings")
        last = self.lastHistoryStep
        stop = last + 1 if max_step is None or max_step > last else max_step
        return HistoryScan(
            self, lambda: self._lines(keys or None), keys=keys, min_step=min_step, stop=stop, page_size=page_size
        )

    beta_scan_history = scan_history

    # -- its files and lines

    def files(self, names: list[str] | None = None, pattern: str | None = None, per_page: int = 50) -> Files:
        """The files, all or those that fit; `pattern` as SQL's LIKE has it, such as "%.png"."""
        return Files(self, names or (), pattern=pattern, per_page=per_page)

    def file(self, name: str) -> File:
        """One file by its name. Raises IndexError if there is none, as the SDK does."""
        return Files(self, [name])[0]

    def console_logs(self, *, per_page: int = 1000, last: int | None = None) -> ConsoleLogs:
        """What the program printed; of `last`, the last so many lines."""
        return ConsoleLogs(self, per_page, last)

    # -- how it shows

    def to_html(self, height: int = 420, hidden: bool = False) -> str:
        """A line with a link to its page."""
        return f'<a href="{html.escape(self.url)}">{html.escape(repr(self))}</a>'

    def _repr_html_(self) -> str:
        return self.to_html() if self._record["url"] else html.escape(repr(self))

    def __repr__(self) -> str:
        return f"<Run {'/'.join(self.path)} ({self._attrs.get('state', 'not found')})>"


def look_up(cache: Cache, ref: RunRef) -> tuple[dict[str, Any], Fingerprint | None, dict[str, Any] | None]:
    """What the cache has to make a Run of. Raises NotFound."""
    record, cursor = query.get_run(cache, ref), cache.mirror(ref)
    own = query.own_summaries(cache, (ref.entity, ref.project), ref.run_id)
    return record, cursor.described if cursor else None, own.get(ref.run_id)


def _stamp(text: str | None) -> str | None:
    """A time of ours as the server writes it."""
    if text is None:
        return None
    time = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
