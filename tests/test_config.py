"""Settings from the environment: every key has its variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from wandbsync import config
from wandbsync.errors import UsageError

WORDS = {
    "cache.dir": ("/x", Path("/x")), "cache.max_age": ("90s", 90.0), "cache.max_size": ("2GB", 2_000_000_000),
    "cache.keep": ("30d", 30 * 86400.0), "local.folders": ("/a, /b", (Path("/a"), Path("/b"))),
    "local.entity": ("mine", "mine"), "server.url": ("https://x.example", "https://x.example"),
    "server.entity": ("team", "team"), "server.projects": ("a/b,c/*", ("a/b", "c/*")),
    "server.exclude": ("*/scratch", ("*/scratch",)), "server.states": ("running,failed", ("running", "failed")),
    "server.tags": ("best", ("best",)), "server.newer_than": ("2h", 7200.0), "server.in_flight": ("3", 3),
    "server.files": ("a.txt,media/**", ("a.txt", "media/**")), "server.files_max_size": ("2MB", 2_000_000),
    "server.downloads": ("2", 2), "daemon.poll": ("5s", 5.0), "daemon.settled": ("1h", 3600.0),
    "daemon.sweep": ("1d", 86400.0), "daemon.scan": ("10m", 600.0), "daemon.metrics_port": ("9187", 9187),
    "lake.url": ("s3://lab/wandb", "s3://lab/wandb"), "lake.every": ("1h", 3600.0), "lake.machine": ("m1", "m1"),
    "plot.smoothing": ("ema:0.5", "ema:0.5"),
}  # fmt: skip


@pytest.mark.parametrize("key", config.KEYS)
def test_every_key_has_its_variable(key: str, tmp_path: Path) -> None:
    text, value = WORDS[key]
    variable = f"WANDBSYNC_{key.replace('.', '_').upper()}"
    (tmp_path / "file.toml").write_text("")
    found = config.load(tmp_path / "file.toml", env={"HOME": str(tmp_path), variable: text})
    for name in config.KEYS[key][0].split("."):
        found = getattr(found, name)
    assert found == value


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    (tmp_path / "file.toml").write_text("")
    env = {"HOME": str(tmp_path), "WANDBSYNC_DAEMON_POLL": "soon", "WANDBSYNC_SERVER_IN_FLIGHT": "many"}
    with pytest.raises(UsageError, match=r"2 problems: WANDBSYNC_SERVER_IN_FLIGHT: .*; WANDBSYNC_DAEMON_POLL: 'soon'"):
        config.load(tmp_path / "file.toml", env=env)
