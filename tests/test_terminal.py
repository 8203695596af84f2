"""No stranger's control character reaches a terminal: one hostile corpus of names through every command, in a pty."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import local_runs
import pytest
from shell import Shell
from test_docs import commands
from wandb.proto import wandb_internal_pb2 as pb
from wandb_server import Server

from wandbsync.terminal import json_text, printable

PACKAGE = Path(__file__).parent.parent / "wandbsync"
ATTACKS = (
    "\x1b]0;",
    "\x1b[2J",
    "\x9b31m",
    "\r",
    "\n",
    "\x08",
    "\x7f",
    "\u202e",
    "\u2066",
    "\u2028",
    "\U000e0041",
    "\x85",
)
OURS = re.compile("\x1b\\[\\?25[lh]|\\r\\n")  # of a progress bar; and a line end as a terminal has it
MARK = "EVIL"


def evil(name: str) -> str:
    """A name with every attack in it, each followed by a mark."""
    return name + "".join(attack + MARK for attack in ATTACKS)


# -- the functions


def test_a_text_becomes_one_line_of_what_has_a_shape() -> None:
    assert printable("val/loss") == "val/loss"
    assert printable("a\x1b[31mb\x9bc\u202ed\ud800e\U000e0041") == r"a\x1b[31mb\x9bc\u202ed\ud800e\U000e0041"
    assert printable("a\r\n\tb\u2028c") == "a   b c"
    whole = "損失 é नमस्ते می\u200cخواهم 👩\u200d💻\u3000\xa0"
    assert printable(whole) == whole  # joiners belong to words and emoji


def test_the_characters_are_those_of_unicode() -> None:
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        control = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in "\u200c\u200d"
        if control:
            assert printable(char) != char, hex(code)
        elif unicodedata.category(char) != "Cn":
            assert printable(char) == char, hex(code)


def test_json_holds_the_same_values_in_escapes() -> None:
    value = {evil("key"): [evil("a"), "\ud800", "plain é 損"], "n": 1}
    text = json_text(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(text) == value and "plain é 損" in text
    assert not raw_in(text.replace("\n", ""))


def test_everything_is_said_in_one_place() -> None:
    """Nobody prints past `terminal`; `output` prints the JSON that went through it."""
    for path in PACKAGE.rglob("*.py"):
        if path.name in ("terminal.py", "demo.py"):  # the demo's training prints to a file
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                allowed = called == "click.echo" and "json_text" in ast.unparse(node)
                assert called not in ("print", "click.echo", "sys.stdout.write", "sys.stderr.write") or allowed, path


# -- the commands


def raw_in(shown: str) -> list[str]:
    """The control characters that came through."""
    return [char for char in OURS.sub("", shown) if printable(char) != char and char != "\r"] + re.findall(
        f"[\r\n]{MARK}", shown
    )


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, dict[str, str]]]:
    """A shell with a cache of a local run and a server's, whose every name is hostile; and some of these names."""
    shell = Shell(tmp_path_factory.mktemp("hostile"))
    project, metric = evil("proj").replace("/", "_"), evil("loss")
    run = {"project": project, "display_name": evil("name"), "notes": evil("notes"), "run_group": evil("group")}
    run |= {"job_type": evil("job"), "host": evil("host"), "tags": [evil("tag")]}
    config = [pb.ConfigItem(key=evil(key), value_json=json.dumps(evil("\0\ud800"))) for key in "ab"]
    values = {metric: 0.5, evil("text"): evil("\0value")}
    for folder, run_id in (("r1", "r1"), ("r2", evil("r2"))):
        begin = local_runs.header(run_id, config=pb.ConfigRecord(update=config), **run)
        records = [*begin, *local_runs.rows(range(20), **values), local_runs.said(evil("line") + "\n")]
        local_runs.put(shell.folder / evil("runs"), folder, [*records, local_runs.end()])
    local_runs.put(shell.folder / evil("runs"), "bad", [b"\xff\xff"], stamp="20240102_000000")
    with Server() as server:
        server.add_project("me", evil("served"))
        server.add_run(
            "me", evil("served"), "s1", [{evil("acc"): 1.0}], display_name=evil("n"), files={evil("media/f"): b"x"}
        )
        server.add_run("me", evil("served"), "s2", [{"x": 1.0}])
        body = json.dumps({"errors": [{"message": evil("sorry")}]}).encode()
        server.fail("HistoryPage", status=400, body=body, times=None, where={"run": "s2"})
        shell.env |= server.env | {"TERM": "xterm", "COLUMNS": "100"}
        shell("sync", "--local", evil("runs"))
        shell.env["COLUMNS"] = "100"
        folder = "".join(f"\\U{ord(char):08x}" for char in str(shell.folder / evil("runs")))
        (shell.folder / evil("kept")).write_text(f'[local]\nfolders = ["{folder}"]\n')
        names = {name: evil(name) for name in ("runs", "missing", "plots", "lake", "written", "kept", "fresh", "saved")}
        names |= {"project": f"local/{project}", "metric": metric, "served": f"me/{evil('served')}"}
        names |= {"of_runs": "SELECT display_name, notes, config FROM runs", "of_rows": "SELECT * FROM history"}
        names |= {"of_lines": "SELECT * FROM console", "of_column": f'SELECT 1 AS "{evil("c")}"'}
        names |= {
            "wrong": f'SELECT "{evil("c")}"',
            "explained": f"EXPLAIN SELECT * FROM history WHERE key = '{metric}'",
        }
        yield shell, names


# Every command, in ways that show names: as results, hints, plans and errors.
ASKED = """
--cache-dir {fresh} --config {kept} daemon run
sync --local {runs} --full --dry-run
-v sync --local {runs} --full
sync --local {missing}
-v sync {served}
sync me/{missing}
list-projects --offline
list-projects --offline --json
list-projects --refresh
list-runs {project} --offline
list-runs {project} --offline --json
list-runs pro --offline
list-runs {served}
list-runs {project} --lake {missing}
list-metrics {project} r1 --offline
list-metrics {project} r1 --offline --json
list-metrics {project} {missing} --offline
list-metrics {project} nam --offline
list-files {served} s1
list-files {served} zz
generate-plots {project} r1 --output {plots} --offline --metrics {metric}
generate-plots {project} r1 --output {plots} --offline --metrics {metric} --label {{nam}}
generate-plots {project} r1 --output {plots} --offline --metrics los
generate-plots {project} r1 --output {plots} --offline --all-metrics
generate-plots {project} r1 --output {plots} --offline --all-metrics --json --data csv
generate-plots {project} --runs-where state=='finished' --group-by group --metrics {metric} --format svg --offline
download-plots {served} s1 --pattern *
download-plots {served} s1 --pattern * --json
sql {of_runs} --offline
sql {of_rows} --offline
sql {of_rows} --offline --format csv
sql {of_lines} --offline --format json
sql {of_column} --offline
sql {wrong} --offline
sql {explained} --offline
sql --schema
status
status --json
export {project} --offline --format csv
export {project} --offline --format csv --wide
export {project} --offline -o {missing}.csv
publish {lake}
cache info
cache info --json
cache verify
cache compact --all
cache repair
cache backup {saved}
cache restore {saved}
cache restore {missing}
cache gc --dry-run --max-size 1KB
--config {missing} config show
--config {missing} config check
--config {written} config init
daemon stop
daemon reload
cache forget {project}/zz
cache forget {project}/r1 --force
"""


# Each command is a fork of a process that has loaded the program: a tenth of the time of one of its own.
FORKS = """
import json, os, sys
import duckdb, matplotlib.figure, pyarrow.parquet
from wandbsync.cli import main
for line in sys.stdin:
    if (child := os.fork()) == 0:
        sys.argv = ["wandbsync", *json.loads(line)]
        main()
    os.waitpid(child, 0)
    print("<<end>>", flush=True)
"""


class Terminal:
    """Where commands are typed."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.screen, side = pty.openpty()
        self.forks = subprocess.Popen(
            [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=side, stderr=side, env=shell.env,
            cwd=shell.folder, text=True,
        )  # fmt: skip
        os.close(side)

    def __call__(self, words: list[str]) -> str:
        """What a command shows. The daemon is stopped once it has synced."""
        print(json.dumps(words), file=self.forks.stdin, flush=True)
        shown, ends, runs = b"", time.monotonic() + 60, words[-1] == "run"
        while not shown.endswith(b"<<end>>\r\n"):
            assert time.monotonic() < ends and self.forks.poll() is None, (words, shown)
            if select.select([self.screen], [], [], 0.1)[0]:
                shown += os.read(self.screen, 65536)
            if runs and b" read " in shown:
                runs = bool(self.shell(*words[:-1], "stop").returncode)
        return shown.removesuffix(b"<<end>>\r\n").decode()

    def close(self) -> None:
        self.forks.communicate()
        os.close(self.screen)


def test_no_command_lets_a_control_character_through(hostile: tuple[Shell, dict[str, str]]) -> None:
    shell, names = hostile
    calls = [[word.format(**names) for word in line.split()] for line in ASKED.strip().splitlines()]
    named = {name for name in commands() for call in calls if f" {name} " in f" {' '.join(call)} "}
    assert named == set(commands()) - {"demo"}
    escaped, terminal = 0, Terminal(shell)
    for words in calls:
        shown = terminal(words)
        assert not raw_in(shown) and "Traceback" not in shown, (words, raw_in(shown), shown)
        escaped += r"\x1b[2J" in shown or r"\u001b[2J" in shown
    terminal.close()
    assert escaped > len(calls) / 2


def test_data_for_a_program_stays_exact(hostile: tuple[Shell, dict[str, str]]) -> None:
    shell, names = hostile
    read = "SELECT DISTINCT key FROM history WHERE key LIKE 'loss%'"
    said = shell("sql", read, "--format", "csv").stdout
    assert names["metric"].replace("\r", "\n") in said  # as Python reads a pipe of text
