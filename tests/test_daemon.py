"""The daemon as a process of its own: what it keeps fresh, what it survives, and how it ends."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import logwriter as lw
import pytest
from conftest import sdk_process
from keeper import DEADLINE, PROMISED, QUICK, Keeper, group_killed, kept, wait_for
from local_runs import contents, end, header, history, put, ref, rows, small
from mirror import rows as api_rows
from shell import Shell
from test_disk import mounts, on_disk
from wandb_server import Server
from wandb_server.front import Listener

from wandbsync import query, status
from wandbsync.cache import Cache
from wandbsync.cache.verify import verify
from wandbsync.config import Config
from wandbsync.daemon import log as daemon_log
from wandbsync.daemon import metrics
from wandbsync.daemon.folders import Folders
from wandbsync.daemon.log import Log
from wandbsync.daemon.service import Service
from wandbsync.daemon.timer import RealTimer
from wandbsync.daemon.upkeep import Upkeep
from wandbsync.errors import Stopped
from wandbsync.status import Snapshot
from wandbsync.sync import sync_local
from wandbsync.sync.local import follow
from wandbsync.watch import Watch


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "runs").mkdir()
    return Shell(tmp_path)


@pytest.fixture
def top(shell: Shell) -> Path:
    return shell.folder / "runs"


@pytest.fixture
def server(shell: Shell) -> Iterator[Server]:
    """The shell's, with me/demo: `a` (finished) and `b` (running)."""
    with Server() as one:
        one.add_run("me", "demo", "a", api_rows(30))
        one.add_run("me", "demo", "b", api_rows(3), state="running")
        shell.env |= one.env
        yield one


def local(top: Path, more: str = QUICK) -> str:
    return f'[local]\nfolders = ["{top}"]\n{more}'


DEMO = f'[server]\nprojects = ["me/demo"]\n{QUICK}'


def grow(path: Path, records: list[bytes]) -> None:
    """As the SDK does: the records at the end."""
    before = path.read_bytes()
    with path.open("ab") as file:
        file.write(lw.append(before, records)[len(before) :])


def runs(folder: Path, project: tuple[str, str] = ("local", "demo")) -> dict[str, dict[str, Any]]:
    """The runs in a cache by id; none if it is not there (yet)."""
    with Cache(folder) as cache:
        if not cache.exists() or project not in {(p["entity"], p["name"]) for p in query.list_projects(cache)}:
            return {}
        return {run["id"]: run for run in query.list_runs(cache, project, limit=None)}


def count(folder: Path, run_id: str, entity: str = "local") -> int:
    run = runs(folder, (entity, "demo")).get(run_id)
    return 0 if run is None else int(run["rows"])


def assert_sound(folder: Path) -> None:
    with Cache(folder) as cache:
        assert [str(one) for one in verify(cache) if not one.harmless] == []


def requests(server: Server) -> dict[str, int]:
    return {name: count.requests for name, count in server.counts.items()}


# -- the runs of this machine


def test_real_runs_are_followed_while_they_run(shell: Shell, top: Path) -> None:
    with kept(shell, local(top, QUICK.replace('scan = "2s"', 'scan = "1h"'))) as keeper:
        jobs = {name: sdk_process("named", top / name) for name in ("one", "two")}
        resumed = sdk_process("resume", top / "res")
        try:
            for name in jobs:
                wait_for(lambda name=name: count(keeper.folder, name), keeper.text)
            seen = count(keeper.folder, "two")
            wait_for(lambda: count(keeper.folder, "two") > seen + 20)
            assert runs(keeper.folder)["two"]["state"] == "running"
            wait_for(lambda: {one.run for one in keeper.now().live} >= {"local/demo/one", "local/demo/two"})
            group_killed(jobs["one"])
            wait_for(lambda: runs(keeper.folder)["one"]["state"] == "crashed", keeper.text, seconds=20.0)
            (top / "two" / "stop").touch()
            jobs["two"].wait(DEADLINE)
            resumed.wait(DEADLINE)
            wait_for(lambda: runs(keeper.folder)["two"]["state"] == "finished")
            wait_for(lambda: count(keeper.folder, "again") == 15)
            wait_for(lambda: runs(keeper.folder)["again"]["state"] == "finished")
            wait_for(lambda: not keeper.now().live)
        finally:
            for job in [*jobs.values(), resumed]:
                if job.poll() is None:
                    group_killed(job)
    # All that is in the logs is in the cache, value for value, and all that was logged is in the logs.
    assert count(keeper.folder, "two") == json.loads((top / "two" / "logged.json").read_text())["rows"]
    with Cache(shell.folder / "other") as other, Cache(keeper.folder) as cache:
        sync_local(other, [top])
        assert contents(cache) == contents(other)


def test_what_happens_to_logs_under_it(shell: Shell, top: Path) -> None:
    paths = {name: put(top, name, [*header(name), *rows(range(20))]) for name in ("cut", "swap", "gone", "fine")}
    with kept(shell, local(top)) as keeper:
        wait_for(lambda: all(count(keeper.folder, name) == 20 for name in paths), keeper.text)
        os.truncate(paths["cut"], 200)
        beside = small(shell.folder / "elsewhere", "other", 7)
        beside.replace(paths["swap"])
        shutil.rmtree(paths["gone"].parent)
        grow(paths["fine"], rows(range(20, 25)))
        wait_for(lambda: count(keeper.folder, "fine") == 25)
        wait_for(lambda: count(keeper.folder, "other") == 7)
        wait_for(lambda: keeper.has_told("not read"))
        shutil.rmtree(top)
        wait_for(lambda: any("not there" in (one.error or "") for one in keeper.now().sources))
        small(top, "back", 4)
        wait_for(lambda: count(keeper.folder, "back") == 4)
        wait_for(lambda: not any(one.error for one in keeper.now().sources))
    assert [count(keeper.folder, name) for name in ("cut", "swap", "gone", "fine")] == [20, 20, 20, 25]
    assert_sound(keeper.folder)


# -- one of them, and its neighbours


def test_one_daemon_and_its_neighbours(shell: Shell, top: Path) -> None:
    assert "no daemon is running" in shell("daemon", "stop").stdout
    assert "`wandbsync daemon run` starts one" in shell.error("daemon", "reload", code=2)
    small(top, "r1")
    shell("sync", "--local", str(top))
    with kept(shell) as keeper:
        assert keeper.process
        pid = str(keeper.process.pid)
        second = shell.error("daemon", "run", code=6)
        assert pid in second and str(keeper.folder) in second and "daemon stop" in second
        small(top, "r2")
        shell("sync", "--local", str(top))
        wait_for(lambda: {"r1", "r2"} <= set(runs(keeper.folder)))  # what was synced by hand is kept
        path = put(top, "r3", header("r3"))
        for i in range(2):
            grow(path, rows([2 * i, 2 * i + 1]))
            shell("sync")
        wait_for(lambda: count(keeper.folder, "r3") == 4)
        assert f"stopped {pid}" in shell("daemon", "stop").stdout
        assert keeper.process.wait(PROMISED) == 0
    with Cache(keeper.folder) as cache:
        assert len(history(cache, ref("r3"))) == 12
    assert_sound(keeper.folder)
    stopped = shell("status", code=12)
    assert "stopped: no daemon is running" in stopped.stdout


def test_the_config_is_read_again(shell: Shell, top: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    small(top, "r1"), small(more, "r2")
    config = local(top)
    with kept(shell, config) as keeper:
        assert keeper.process
        wait_for(lambda: count(keeper.folder, "r1") == 5)
        keeper.configure("[daemon]\npoll = 'never'\n")  # noticed by itself
        refused = wait_for(lambda: (one := keeper.status()) and one.config_problem)
        assert "never" in refused
        assert "the config has 1 problem" in shell.error("daemon", "reload", code=2)
        good = tmp_path / "good.toml"
        good.write_text(config)
        failing = shell("--config", str(good), "status", code=11)
        assert "failing: the changed config is not in force" in failing.stdout
        refusal = shell.error("--config", str(good), "daemon", "reload", code=2)
        assert "refused, the old config stays in force" in refusal and "never" in refusal
        small(top, "r3")
        wait_for(lambda: count(keeper.folder, "r3") == 5)  # the old one is in force
        keeper.configure(config.replace("folders = [", f'folders = ["{more}", '))
        wait_for(lambda: count(keeper.folder, "r2") == 5)
        assert str(keeper.file) in shell("daemon", "reload").stdout
        wait_for(lambda: len(keeper.now().sources) == 2 and keeper.now().config_problem is None)
        keeper.configure(f'[cache]\ndir = "{tmp_path}/other"\n{config}')  # the environment beats it
        keeper.signal(signal.SIGHUP)
        assert keeper.now().config_problem is None
        shell("status")
        assert [one["changed"] for one in keeper.has_told("config read")][:2] == [True, False]


def test_metrics_are_told_on_a_port_of_this_machine(shell: Shell, top: Path) -> None:
    with Server() as other:  # takes a port, and leaves it
        port = int(other.url.rpartition(":")[2])
    put(top, "r1", [*header("r1"), *rows(range(3))])
    with kept(shell, f"{local(top)}metrics_port = {port}\n") as keeper:

        def text() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
                return str(answer.read().decode())

        wait_for(lambda: "wandbsync_up 1" in text(), lambda: text())
        lines = text().splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        assert all(line.startswith("wandbsync_") for line in values)
        assert values['wandbsync_verdict{verdict="ok"}'] == "1"
        age = values[f'wandbsync_source_age_seconds{{kind="local",source="{top}"}}']
        assert 0 <= float(age) < 30
        named = {line.split()[2] for line in lines if line.startswith("# TYPE")}
        assert {line.split("{")[0] for line in values} == named
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)
        other_shell = Shell(shell.folder / "other")
        other_shell.folder.mkdir()
        second = Keeper(other_shell, f"{QUICK}metrics_port = {port}\n").start(wait=False)
        assert second.process and second.process.wait(DEADLINE) == 1
        assert f"cannot listen on port {port}" in second.text() and "Traceback" not in second.text()
        # A port that is taken is no reason to end for whoever is at work.
        with Server() as blocker:
            taken = int(blocker.url.rpartition(":")[2])
            keeper.configure(f"{local(top)}metrics_port = {taken}\n")
            wait_for(lambda: (one := keeper.status()) and f"port {taken}" in (one.config_problem or ""), keeper.text)
            assert keeper.alive and "wandbsync_up 0" in text()
        keeper.configure(f"{local(top)}metrics_port = {port}\n")
        wait_for(lambda: (one := keeper.status()) and one.config_problem is None)


def test_who_only_holds_the_line_does_not_keep_others_from_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,021 idle connections once took every descriptor of the daemon."""
    monkeypatch.setattr(metrics, "PATIENCE", 1.0)
    with Server() as other:
        number = int(other.url.rpartition(":")[2])
    threads = threading.active_count()
    port = metrics.Port(number, lambda: Snapshot(1, "h", "v", 0.0, 0.0), time.time)
    with ExitStack() as held:
        held.callback(port.close)
        idle = [held.enter_context(socket.create_connection(("127.0.0.1", number))) for _ in range(3 * metrics.MOST)]
        wait_for(lambda: len(select.select(idle, [], [], 0)[0]) >= 2 * metrics.MOST)
        assert threading.active_count() - threads <= 2 * metrics.MOST + 1
        idle[0].sendall(b"GET /metrics HTTP/1.0\r\nX-Drip: ")

        def answered() -> bool:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{number}/metrics", timeout=10) as answer:
                return b"wandbsync_up" in answer.read()
            return False

        wait_for(answered)
        wait_for(lambda: idle[0] in select.select([idle[0]], [], [], 0)[0])


# -- how it ends


def test_it_ends_in_time_while_a_server_does_not_answer(shell: Shell, server: Server) -> None:
    server.fail("*", times=None, latency=60.0)
    with kept(shell, DEMO) as keeper:
        wait_for(lambda: server.requests or any(job.state == "running" for job in keeper.now().jobs))
        time.sleep(0.3)
    server.calm()


def test_it_ends_in_time_while_a_large_log_is_read(shell: Shell, top: Path) -> None:
    for name in ("r1", "r2"):
        put(top, name, [*header(name), *rows(range(2000), text="wandb" * 4000), end()])
    with kept(shell, local(top)) as keeper:
        wait_for(lambda: any(job.state == "running" for job in keeper.now().jobs) or runs(keeper.folder))
    assert keeper.has_told("stopped")
    assert_sound(keeper.folder)
    shell("sync", "--local", str(top))
    assert [count(keeper.folder, name) for name in ("r1", "r2")] == [2000, 2000]


def test_ctrl_c_ends_it_too(shell: Shell) -> None:
    with kept(shell) as keeper:
        keeper.signal(signal.SIGINT)
        assert keeper.process and keeper.process.wait(PROMISED) == 0
        assert keeper.status() and keeper.status().stopping  # type: ignore[union-attr]


# -- the projects of a server


def test_projects_are_polled(shell: Shell, server: Server) -> None:
    server.add_run("some-team", "vision", "v", api_rows(4))
    server.add_run("some-team", "scratch", "s", api_rows(4))
    config = (
        f'[cache]\nmax_age = "0s"\n[server]\nprojects = ["me/demo", "some-team/*"]\nexclude = ["*/scratch"]\n{QUICK}'
    )
    with kept(shell, config) as keeper:
        folder = keeper.folder
        wait_for(lambda: count(folder, "a", "me") == 30 and count(folder, "b", "me") == 3, keeper.text)
        wait_for(lambda: runs(folder, ("some-team", "vision")), keeper.text)
        b = server.run("me", "demo", "b")
        server.grow(b, api_rows(5, 3))
        wait_for(lambda: count(folder, "b", "me") == 8)
        server.add_run("me", "demo", "c", api_rows(6), state="running")
        wait_for(lambda: count(folder, "c", "me") == 6)
        server.grow(b, api_rows(1, 8))
        server.finish(b)
        wait_for(lambda: runs(folder, ("me", "demo"))["b"]["state"] == "finished")
        assert count(folder, "b", "me") == 9
        server.delete(server.run("me", "demo", "a"))
        wait_for(lambda: runs(folder, ("me", "demo"))["a"]["deleted_at"])
        wait_for(lambda: (one := keeper.now()).sources and all(source.fresh_at for source in one.sources))
        assert {one.location for one in keeper.now().sources} == {
            f"{server.url} me/demo", f"{server.url} some-team/vision",
        }  # fmt: skip
        shell("status")
    for file in [*(folder / "logs").iterdir(), folder / "status.json", keeper.said]:
        assert server.key not in file.read_text()
    assert_sound(folder)


def test_reading_commands_leave_asking_to_the_daemon(shell: Shell, server: Server) -> None:
    config = '[cache]\nmax_age = "0s"\n[server]\nprojects = ["me/demo"]\n[daemon]\npoll = "1h"\nsettled = "1h"\n'
    with kept(shell, config) as keeper:
        wait_for(lambda: any(one.fresh_at for one in keeper.now().sources))

        def asked(*words: str) -> dict[str, int]:
            server.reset_counts()
            shell(*words)
            return requests(server)

        assert asked("list-runs", "me/demo") == {}
        assert asked("list-metrics", "me/demo", "a") == {}
        assert asked("list-runs", "demo", "--json") == {}
        assert asked("sql", "SELECT count(*) FROM history") == {}
        assert asked("list-runs", "me/demo", "--offline") == {}
        assert asked("list-runs", "me/demo", "--refresh") != {}
        assert asked("list-runs", "me/demo", "--max-age", "0s") != {}
    assert asked("list-runs", "me/demo") != {}
    keeper.start()
    wait_for(lambda: any(one.fresh_at for one in keeper.now().sources))
    assert asked("list-runs", "me/demo") == {}
    keeper.kill()  # its last words stay behind
    assert asked("list-runs", "me/demo") != {}


def syncs(keeper: Keeper) -> bool:
    """Whether it asks for a project just now."""
    return any(job.state == "running" for job in keeper.now().jobs if job.name.startswith(("sync", "find")))


def test_a_server_that_is_away_is_probed_and_nothing_else(shell: Shell, server: Server) -> None:
    """It goes while a run is fetched: that look ends with an error, the next ones work as soon as it is back."""
    server.add_run("me", "other", "o", api_rows(3), state="running")
    with kept(shell, DEMO.replace('"me/demo"', '"me/demo", "me/other"')) as keeper:
        wait_for(lambda: count(keeper.folder, "b", "me") == 3, keeper.text)
        for operation in ("HistoryPage", "RunParquetHistory", "Viewer"):
            server.fail(operation, times=None, status=503)
        server.add_run("me", "demo", "c", api_rows(5), state="running")
        wait_for(lambda: keeper.has_told("server away"), keeper.text)
        server.fail("*", times=None, status=503)
        wait_for(lambda: not syncs(keeper))  # whoever was at it has given up
        server.reset_counts()
        assert "is away" in shell("status", code=10).stdout
        wait_for(lambda: requests(server), keeper.text)
        assert set(requests(server)) == {"Viewer"}
        server.calm()
        wait_for(lambda: count(keeper.folder, "c", "me") == 5, keeper.text)
        wait_for(lambda: (one := keeper.now().server) and one.reachable)
        assert len(keeper.has_told("server away")) == len(keeper.has_told("server back")) == 1
        assert all(one.failures == 0 for one in keeper.now().sources)


def test_a_server_that_is_not_there_at_first(shell: Shell, server: Server) -> None:
    port = server._listener.server_address[1]
    server._listener.shutdown()
    server._listener.server_close()
    with kept(shell, DEMO) as keeper:
        wait_for(lambda: (one := keeper.status()) and one.server and one.server.reachable is False, keeper.text)
        assert "refuses the connection" in shell("status", code=10).stdout
        server._listener = Listener(server, port)
        threading.Thread(target=server._listener.serve_forever, args=(0.05,), daemon=True).start()
        wait_for(lambda: count(keeper.folder, "a", "me") == 30, keeper.text)
        wait_for(lambda: shell("status", code=0) if (now := keeper.now().server) and now.reachable else None)


def test_a_storm_of_refusals_is_waited_for(shell: Shell, server: Server) -> None:
    limit = server.limit("*", rate=8, burst=2)
    for i in range(5):
        server.add_run("me", "demo", f"more{i}", api_rows(4))
    with kept(shell, DEMO) as keeper:
        wait_for(lambda: all(count(keeper.folder, f"more{i}", "me") == 4 for i in range(5)), keeper.text)
        assert all(one.failures == 0 for one in keeper.now().sources)
        server.calm()
        server.fail("*", times=3, status=429, retry_after=1)
        server.add_run("me", "demo", "last", api_rows(4))
        wait_for(lambda: count(keeper.folder, "last", "me") == 4, keeper.text)
        assert all(one.failures == 0 for one in keeper.now().sources)
    assert limit.refused < 20
    assert_sound(keeper.folder)


def test_a_wrong_key_and_then_the_right_one(shell: Shell, server: Server) -> None:
    host = server.url.removeprefix("http://")
    netrc = shell.folder / ".netrc"

    def sign_in(key: str) -> None:
        netrc.write_text(f"machine {host}\n  login user\n  password {key}\n")
        netrc.chmod(0o600)

    del shell.env["WANDB_API_KEY"]
    wrong = "f" * 40
    sign_in(wrong)
    with kept(shell, DEMO) as keeper:
        away = wait_for(lambda: (one := keeper.status()) and one.server and one.server.error, keeper.text)
        assert "does not accept the API key" in away
        server.reset_counts()
        sign_in(server.key)
        wait_for(lambda: count(keeper.folder, "a", "me") == 30, keeper.text)
    for file in [*(keeper.folder / "logs").iterdir(), keeper.folder / "status.json", keeper.said]:
        assert server.key not in file.read_text() and wrong not in file.read_text()


def test_a_pattern_that_leads_nowhere_stops_no_other_project(shell: Shell, server: Server) -> None:
    config = DEMO.replace('"me/demo"', '"nobody-there/*", "me/d*", "me/no-such-project"')
    with kept(shell, config) as keeper:
        wait_for(lambda: count(keeper.folder, "a", "me") == 30, keeper.text)
        server.grow(server.run("me", "demo", "b"), api_rows(4, 3))
        wait_for(lambda: count(keeper.folder, "b", "me") == 7, keeper.text)
        assert not keeper.has_told("server away")
        wrong = wait_for(lambda: [one for one in keeper.now().sources if one.error])
        assert [one.location for one in wrong] == [f"{server.url} me/no-such-project"]


# -- the cache


def test_a_cache_that_is_deleted_is_begun_anew(shell: Shell, server: Server, top: Path) -> None:
    path = put(top, "r1", [*header("r1"), *rows(range(3))])
    slow = '[daemon]\npoll = "1h"\nsettled = "1h"\nscan = "1h"\n'
    config = f'[server]\nprojects = ["me/demo"]\n{local(top, slow)}'
    with path.open("ab"), kept(shell, config) as keeper:  # somebody has it open: it goes on
        for round_ in range(2):
            wait_for(lambda: count(keeper.folder, "a", "me") == 30, keeper.text)
            grow(path, rows(range(3 + round_, 4 + round_)))
            wait_for(lambda n=round_: count(keeper.folder, "r1") == 4 + n, keeper.text)
            shutil.rmtree(keeper.folder, ignore_errors=True)
            shutil.rmtree(keeper.folder, ignore_errors=True)
        wait_for(lambda: count(keeper.folder, "a", "me") == 30, keeper.text)
        wait_for(lambda: count(keeper.folder, "r1") == 5, keeper.text)
        shell.error("daemon", "run", code=6)
    assert_sound(keeper.folder)


FULL = """
from test_daemon import *
shell = Shell(folder)
runs_of = Path({runs!r})
path = runs_of / "wandb" / "offline-run-20240101_000000-r1" / "run-r1.wandb"
with kept(shell, local(runs_of)) as keeper:
    wait_for(lambda: count(keeper.folder, "r1") == 3, keeper.text)
    with open(folder / "filler", "ab", buffering=0) as file:
        for i in range(3, 9):
            try:
                while file.write(bytes(4096)) == 4096:  # what the daemon gives up meanwhile is taken, too
                    pass
            except OSError:
                pass
            grow(path, rows([i]))
            time.sleep(0.3)
    assert keeper.alive and count(keeper.folder, "r1") < 9
    (folder / "filler").unlink()
    grow(path, rows([9]))
    wait_for(lambda: count(keeper.folder, "r1") == 10, keeper.text)
with Cache(keeper.folder) as cache:
    assert len(history(cache, ref("r1"))) == 30
assert_sound(keeper.folder)
"""


@pytest.mark.skipif(not mounts(), reason="this system lets us mount nothing")
def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    top = tmp_path / "runs"
    put(top, "r1", [*header("r1"), *rows(range(3))])
    on_disk(tmp_path / "disk", "size=8m", FULL.format(runs=str(top)))


@pytest.mark.skipif(not mounts(), reason="this system lets us mount nothing")
def test_a_cache_that_may_not_be_written_is_told_at_once(tmp_path: Path) -> None:
    script = """
from test_daemon import *
shell = Shell(folder)
Keeper(shell, QUICK)
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
assert str(folder) in shell.error("daemon", "run", code=1)
"""
    on_disk(tmp_path / "disk", "size=8m", script)


def test_killed_at_any_moment_it_loses_and_doubles_nothing(shell: Shell, server: Server, top: Path) -> None:
    dice = random.Random()
    names = [f"r{i}" for i in range(4)]
    paths = [put(top, name, header(name)) for name in names]
    held = [path.open("ab") for path in paths]  # somebody has them open: they go on
    over = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        b = server.run("me", "demo", "b")
        while not over.is_set():
            for path in paths:
                grow(path, rows([written]))
            server.grow(b, api_rows(1, 3 + written))
            written += 1
            time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    keeper = Keeper(shell, f'[server]\nprojects = ["me/demo"]\n{local(top)}')
    try:
        for _ in range(8):
            keeper.start(wait=False)
            time.sleep(dice.uniform(0.6, 2.0))
            keeper.kill()
        over.set()
        writer.join()
        for path in paths:
            grow(path, [end()])
        server.finish(server.run("me", "demo", "b"))
        keeper.start()
        wait_for(lambda: all(count(keeper.folder, name) == written for name in names), keeper.text)
        wait_for(lambda: count(keeper.folder, "b", "me") == 3 + written, keeper.text)
        keeper.stop()
    finally:
        over.set()
        keeper.kill()
        for file in held:
            file.close()
    assert_sound(keeper.folder)
    shell("cache", "verify")
    with Cache(keeper.folder) as cache:
        for name in names:
            found = history(cache, ref(name))
            assert [step for key, step in sorted(found) if key == "x"] == list(range(written))
        rows_of_b = query.series(cache, query.find_run(cache, ("me", "demo"), "b"), "i")[0].tolist()
        assert sorted(rows_of_b) == list(range(3 + written))


# -- its parts


class Pace:
    """A timer that never calls."""

    def at(self, name: str, when: float, pool: str, call: Any) -> None: ...
    def cancel(self, name: str) -> None: ...
    def stop(self) -> None: ...


def test_compaction_ends_when_the_service_does(tmp_path: Path) -> None:
    from rows import number, share

    from wandbsync.model import RunRef

    run = RunRef("e", "p", "r")
    folder = tmp_path / "cache"
    with Cache(folder) as cache:
        for i in range(33):
            assert cache.commit([share(run, cache.revision(run), [number("loss", i, 1.0)])]) != [None]
    service = Service(Pace(), Log())
    upkeep = Upkeep(Config(folder), folder, service, Log())
    service.stopping.set()
    with pytest.raises(Stopped):
        upkeep.tidy()
    service.stopping.clear()
    assert upkeep.tidy() is not None
    assert_sound(folder)


def test_jobs_go_on_whatever_happens_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wandbsync.daemon.service.AGAIN", 0.1)
    service = Service(RealTimer({"pool": 2}), Log())
    calls = {"stops": 0, "crashes": 0, "fine": 0}

    def stops() -> float:
        calls["stops"] += 1
        if calls["stops"] == 1:
            raise Stopped  # of somebody who was in its way, not the service's
        return service.clock() + 0.01

    def crashes() -> float:
        calls["crashes"] += 1
        raise RuntimeError("nobody foresaw this")

    def fine() -> float:
        calls["fine"] += 1
        time.sleep(0.01)
        return service.clock()

    for name, call in (("stops", stops), ("crashes", crashes), ("fine", fine)):
        service.add(name, "pool", call, service.clock())
    wait_for(lambda: calls["fine"] > 5 and calls["stops"] > 2, seconds=60.0)
    told = {job.name: job for job in service.status()}
    assert told["crashes"].failures == 1 and "nobody foresaw this" in (told["crashes"].error or "")
    assert told["crashes"].next_at and told["crashes"].next_at > service.clock()
    service.wake("crashes")
    wait_for(lambda: calls["crashes"] == 2)
    service.stop()
    assert service.wait(DEADLINE)


def test_who_follows_goes_on_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = tmp_path / "runs"
    path = put(top, "r1", [*header("r1"), *rows(range(3))])
    service = Service(Pace(), Log(tmp_path / "logs"))
    folders = Folders(
        Config(tmp_path / "cache", local_folders=(top,)),
        tmp_path / "cache",
        service,
        service.log,
        watch=Watch(poll=0.05),
    )
    broken = [True]

    def follows(*args: Any, **how: Any) -> Any:
        if broken.pop() if broken else False:
            raise RuntimeError("nobody foresaw this")
        return follow(*args, **how)

    monkeypatch.setattr("wandbsync.daemon.folders.follow", follows)
    monkeypatch.setattr("wandbsync.daemon.folders.AGAIN", 0.1)
    thread = threading.Thread(target=folders.run)
    try:
        with path.open("ab"):  # somebody has it open: it goes on
            folders.scan()
            thread.start()
            grow(path, rows([3]))
            wait_for(lambda: count(tmp_path / "cache", "r1") == 4)
        assert "nobody foresaw this" in (tmp_path / "logs" / "daemon.log").read_text()
    finally:
        service.stop()
        folders.watch.stop()
        thread.join(DEADLINE)
        service.log.close()


def test_the_log_is_rotated_and_keeps_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon_log, "BYTES", 2000)
    out = (tmp_path / "out.txt").open("w+")
    log = Log(tmp_path / "logs", out=out, clock=lambda: 1.8e9)
    log.hide({"s3cr3t"})
    for i in range(100):
        log.note("an event", number=i, text="with s3cr3t\nin two lines")
    log.detail("too much for people")
    try:
        raise RuntimeError("s3cr3t")
    except RuntimeError as error:
        log.crash("crashed", error)
    log.close()
    files = sorted((tmp_path / "logs").iterdir())
    assert [file.name for file in files] == ["daemon.log", *(f"daemon.log.{i}" for i in range(1, daemon_log.FILES + 1))]
    text = "".join(file.read_text() for file in files)
    assert all(file.stat().st_size <= 4000 for file in files)
    assert "s3cr3t" not in text and "***" in text
    last = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert last[-1]["event"] == "crashed" and "RuntimeError: ***" in last[-1]["traceback"]
    assert last[-1]["time"] == "2027-01-15T08:00:00.000Z" and last[-1]["level"] == "problem"
    out.seek(0)
    said = out.read()
    assert "an event number=99" in said and "too much" not in said and "s3cr3t" not in said
    out.close()


def test_the_status_answers_while_it_is_written(tmp_path: Path) -> None:
    """A reader never meets half a status."""
    script = (
        "import sys; from pathlib import Path; from wandbsync import status\n"
        "one = status.Snapshot(1, 'h', 'v', 0.0, 0.0, sources=[status.Source('local', 'x' * 50)] * 500)\n"
        "while True: status.write(Path(sys.argv[1]), one)"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    try:
        wait_for(lambda: status.read(tmp_path))
        for _ in range(50):
            found = status.read(tmp_path)
            assert found is not None and len(found.sources) == 500
    finally:
        writer.kill()
        writer.wait()
