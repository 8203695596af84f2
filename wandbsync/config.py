"""Settings: a TOML file and the environment become one frozen Config; every problem is named at once.

Environment beats file, file beats default. Every key has its variable: server.projects is WANDBSYNC_SERVER_PROJECTS.
`config/wandbsync.toml` lists every key with its default and what it means.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import UsageError
from .model import Pace
from .sizes import exact_size, parse_size


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. Durations are seconds, sizes bytes."""

    cache_dir: Path
    max_age: float = 300.0  # how old an answer may be before a command looks at the source again
    max_size: int | None = None  # of the cache; None: as large as it gets
    keep: float | None = None  # rows and media not used for longer are removed; None: never
    local_folders: tuple[Path, ...] = ()  # watched for `wandb/run-*` besides those synced by hand
    local_entity: str = "local"  # of local runs that do not say whose they are
    server_url: str | None = None  # of the API; None: as W&B's own settings say
    default_entity: str | None = None  # tried first for a project named without one
    projects: tuple[str, ...] = ()  # patterns of entity/project that `sync` mirrors besides those synced by hand
    exclude: tuple[str, ...] = ()  # patterns of projects to leave out of these
    states: tuple[str, ...] = ()  # only runs in these states; () for all, as below
    tags: tuple[str, ...] = ()  # only runs with one of these tags
    newer_than: float | None = None  # only runs made since then
    files: tuple[str, ...] = ()  # globs of small files that are mirrored with their runs
    files_max_size: int | None = 1_000_000  # of such a file, bytes
    in_flight: int = 1  # requests of one project under way at a time
    downloads: int = 4  # files under way at a time
    pace: Pace = field(default_factory=Pace)  # of projects that have none of their own
    paces: tuple[tuple[str, Pace], ...] = ()  # pattern of entity/project -> theirs; the first that fits counts
    scan: float = 300.0  # how often the daemon walks all local folders
    metrics_port: int | None = None  # where the daemon tells Prometheus how it is, on this machine only; None: nowhere
    lake_url: str | None = None  # where the daemon publishes to; None: nowhere
    lake_every: float = 600.0  # how often
    lake_machine: str | None = None  # what the lake calls this machine; None: its host name
    smoothing: str = "auto"  # of plots for which none is asked
    file: Path | None = None  # where it was read from

    @property
    def machine(self) -> str:
        """What the lake calls this machine."""
        import socket

        return self.lake_machine or socket.gethostname()


def default_cache_dir(env: Mapping[str, str] = os.environ) -> Path:
    base = env.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "wandbsync"


def default_file(env: Mapping[str, str] = os.environ) -> Path:
    base = env.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "wandbsync" / "wandbsync.toml"


def parse_duration(text: str | float) -> float:
    """`90`, `90s`, `5m`, `2h` or `1d` as seconds; ValueError for anything else."""
    if isinstance(text, bool):
        raise ValueError(f"{text!r} is not a duration such as 90s, 5m, 2h, 1d")
    if isinstance(text, (int, float)):
        text = str(text)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|d)?\s*", text)
    if not match:
        raise ValueError(f"{text!r} is not a duration such as 90s, 5m, 2h, 1d")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2] or "s"]


def show_duration(seconds: float) -> str:
    """Seconds the way `parse_duration` reads them."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)}{unit}"
    return f"{seconds:g}s"


def show_value(key: str, value: Any) -> Any:
    """The value of a key the way it is written in the file, if that is a duration or a size."""
    read = KEYS[key][1] if key in KEYS else _interval if key.startswith("projects.") else None
    if read in (parse_size, parse_age) and value is None:
        return "unlimited"
    if read in (parse_duration, parse_age, _interval) and value is not None:
        return show_duration(value)
    return exact_size(value) if read is parse_size else value


def parse_age(text: str | float) -> float | None:
    """A duration, or None for `unlimited`; ValueError for anything else."""
    if isinstance(text, str) and text.strip().lower() == "unlimited":
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{error}, or unlimited") from None


def _folder(value: Any) -> Path:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not a folder")
    try:
        return Path(value).expanduser()
    except RuntimeError as error:  # there is no such user
        raise ValueError(f"{value!r} is not a folder: {error}") from error


def _folders(value: Any) -> tuple[Path, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} is not a list of folders")
    return tuple(_folder(one) for one in value)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "/" in value:
        raise ValueError(f"{value!r} is not a name")
    return value.strip()


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not an address")
    return value.strip()


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one.strip() for one in value):
        raise ValueError(f"{value!r} is not a list of names")
    return tuple(one.strip() for one in value)


def _patterns(value: Any) -> tuple[str, ...]:
    for one in _names(value):
        if one.count("/") != 1 or not all(one.split("/")):
            raise ValueError(f"{one!r} is not entity/project, where * stands for any name")
    return _names(value)


def _few(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 64:
        raise ValueError(f"{value!r} is not a number from 1 to 64")
    return value


def _port(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise ValueError(f"{value!r} is not a port, a number from 1 to 65535")
    return value


def _smoothing(value: Any) -> str:
    from .plot.stats.smoothing import named  # here, for few set it

    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not the name of a smoothing")
    named(value)
    return value


def _interval(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds < 1:
        raise ValueError(f"{value!r} is less than a second")
    return seconds


# key in the file -> (field of Config, how to read it, environment variables that beat it)
KEYS: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "cache.dir": ("cache_dir", _folder, ("WANDBSYNC_CACHE_DIR",)),
    "cache.max_age": ("max_age", parse_duration, ("WANDBSYNC_MAX_AGE",)),
    "cache.max_size": ("max_size", parse_size, ("WANDBSYNC_MAX_SIZE",)),
    "cache.keep": ("keep", parse_age, ("WANDBSYNC_KEEP",)),
    "local.folders": ("local_folders", _folders, ()),
    "local.entity": ("local_entity", _name, ("WANDBSYNC_LOCAL_ENTITY",)),
    "server.url": ("server_url", _text, ("WANDB_BASE_URL",)),
    "server.entity": ("default_entity", _name, ("WANDB_ENTITY",)),
    "server.projects": ("projects", _patterns, ()),
    "server.exclude": ("exclude", _patterns, ()),
    "server.states": ("states", _names, ()),
    "server.tags": ("tags", _names, ()),
    "server.newer_than": ("newer_than", parse_duration, ()),
    "server.files": ("files", _names, ()),
    "server.files_max_size": ("files_max_size", parse_size, ()),
    "server.in_flight": ("in_flight", _few, ()),
    "server.downloads": ("downloads", _few, ()),
    "daemon.poll": ("pace.poll", _interval, ()),
    "daemon.settled": ("pace.settled", _interval, ()),
    "daemon.sweep": ("pace.sweep", _interval, ()),
    "daemon.scan": ("scan", _interval, ()),
    "daemon.metrics_port": ("metrics_port", _port, ()),
    "lake.url": ("lake_url", _text, ("WANDBSYNC_LAKE",)),
    "lake.every": ("lake_every", _interval, ()),
    "lake.machine": ("lake_machine", _name, ()),
    "plot.smoothing": ("smoothing", _smoothing, ()),
}
PACE = ("poll", "settled", "sweep")  # the keys of [daemon] that a project may have for itself, in [projects."e/p"]

TABLES = [*dict.fromkeys(key.split(".")[0] for key in KEYS), "projects"]


def load(file: Path | None = None, *, cache_dir: Path | None = None, env: Mapping[str, str] = os.environ) -> Config:
    """Read the settings. `file` must exist if it is given here or in WANDBSYNC_CONFIG. Raises UsageError."""
    named = file or (Path(env["WANDBSYNC_CONFIG"]) if env.get("WANDBSYNC_CONFIG") else None)
    path = named or default_file(env)
    problems: list[str] = []
    values: dict[str, Any] = {}
    if path.exists() or named:
        values, problems = _read(path)
    names = {key: f"{key} in {path}" for key in values if key != "projects"}
    for key, (_, read, variables) in KEYS.items():
        for variable in (*variables, f"WANDBSYNC_{key.replace('.', '_').upper()}"):
            if env.get(variable):
                values[key], names[key] = _from_env(read, env[variable]), variable
    fields: dict[str, Any] = {"cache_dir": default_cache_dir(env), "file": path if path.exists() else None}
    paces = values.pop("projects", {})
    for key, value in values.items():
        field, read, _ = KEYS[key]
        try:
            fields[field] = read(value)
        except ValueError as error:
            problems.append(f"{names[key]}: {error}")
    pace = Pace(**{name: fields.pop(f"pace.{name}") for name in PACE if f"pace.{name}" in fields})
    fields |= {"pace": pace, "paces": _paces(paces, pace, path, problems)}
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
        raise UsageError(
            f"the config has {count}: {'; '.join(problems)}",
            hint="`wandbsync config init` writes a commented example",
        )
    if cache_dir is not None:
        fields["cache_dir"] = cache_dir
    return Config(**fields)


def _from_env(read: Any, text: str) -> Any:
    """What a variable of the environment says, as the file would: lists are separated by commas."""
    if read in (_folders, _names, _patterns):
        return [part.strip() for part in text.split(",") if part.strip()]
    return int(text) if read in (_few, _port) and text.strip().isdecimal() else text


def _paces(tables: dict[str, Any], usual: Pace, path: Path, problems: list[str]) -> tuple[tuple[str, Pace], ...]:
    """What projects have for themselves; what they leave out is as usual."""
    paces = []
    for name, table in tables.items():
        where = f'[projects."{name}"] in {path}'
        try:
            _patterns([name])
            if not isinstance(table, dict):
                raise ValueError("it is not a table")
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        own: dict[str, float] = {}
        for key, value in table.items():
            try:
                if key not in PACE:
                    raise ValueError(f"there is no such key ({_there(PACE)})")
                own[key] = _interval(value)
            except ValueError as error:  # noqa: PERF203
                problems.append(f"{key} of {where}: {error}")
        paces.append((name, replace(usual, **own)))
    return tuple(paces)


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    if sys.version_info >= (3, 11):  # here, for most commands find no file
        import tomllib
    else:
        import tomli as tomllib

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the config {path} is not TOML: {error}") from error
    values: dict[str, Any] = {}
    problems: list[str] = []
    for table, content in tables.items():
        if not isinstance(content, dict):
            problems.append(f"{table} in {path}: there is no such table ({_there(TABLES)})")
            continue
        if table == "projects":
            values["projects"] = content
            continue
        if table not in TABLES:
            problems.append(f"[{table}] in {path}: there is no such table ({_there(TABLES)})")
            continue
        for name, value in content.items():
            key = f"{table}.{name}"
            if key in KEYS:
                values[key] = value
            else:
                known = [one for one in KEYS if one.startswith(f"{table}.")]
                problems.append(f"{key} in {path}: there is no such key ({_there(known)})")
    return values, problems


def _there(names: Iterable[str]) -> str:
    return f"there is {', '.join(names)}"


def example() -> str:
    """The commented example, with every key at its default."""
    here = Path(__file__).parent
    packaged = here / "wandbsync.toml"  # put there by the build; in a checkout it lies in config/
    path = packaged if packaged.exists() else here.parent / "config" / "wandbsync.toml"
    return path.read_text(encoding="utf-8")
