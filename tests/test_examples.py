"""Every code block and every command of the documents is run as it stands, each in a place of its own."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox import ROOT, Sandbox, fill
from wandb_server import Server

DOCUMENTS = ["README.md", "SKILL.md", "docs/api.md"]
# What is for people who set up a machine, and what stays in the foreground: not run as it stands.
LEFT_OUT = re.compile(r"^\s*(pip install|make |tmux |cp config/|systemctl |.*srun )|^\s*wandbsync daemon run\b")
# What stands for something in a command.
MEANT = {
    "ENTITY/PROJECT/RUN": "my-team/vision/3ti4gf13", "ENTITY/PROJECT": "my-team/vision", "ENTITY/*": "my-team/*",
    "RUN[,RUN...]": "3ti4gf13,x8k2v0qa", "RUN": "3ti4gf13", "DIR": "experiments", "E/P": "my-team/vision",
    "loss,acc": "loss,val/loss", "20GB": "20GB", "s3://lab/wandb": "lake",
}  # fmt: skip


def blocks() -> dict[str, tuple[str, str]]:
    """Name -> language and text of every fenced or indented block that has a command or Python."""
    found = {}
    for document in DOCUMENTS:
        text = (ROOT / document).read_text()
        fences = re.finditer(r"^```(\w+)\n(.*?)^```$|(?<=\n\n)((?:    [^\n]*\n)+)", text, re.M | re.S)
        for number, match in enumerate(fences, 1):
            language, block = (match[1], match[2]) if match[1] else ("bash", match[3])
            found[f"{document}-{number}"] = language, block
    return found


def commands() -> list[str]:
    """Every command that stands in the words of a document."""
    found: dict[str, None] = {}
    for document in DOCUMENTS:
        text = re.sub(r"^```.*?^```$", "", (ROOT / document).read_text(), flags=re.M | re.S)
        for span in re.findall(r"`(wandbsync [^`]+)`", text):
            command = " ".join(span.split())
            for word, meant in MEANT.items():
                command = re.sub(rf"(?<![\w/]){re.escape(word)}(?![\w/])", meant, command)
            if not LEFT_OUT.match(command):
                found[command] = None
    return list(found)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Server(teams=["my-team"]) as server:
        fill(server)
        yield Sandbox(tmp_path_factory.mktemp("documents") / "template", server)


def needs(text: str) -> None:
    for word, module in {"pandas": "pandas", "polars": "polars", "to_csv": "pandas", ".describe(": "pandas"}.items():
        if word in text:
            pytest.importorskip(module)


def test_all_blocks_are_of_a_language_that_is_run() -> None:
    assert {language for language, _ in blocks().values()} <= {"bash", "python"}
    assert len(blocks()) > 20


@pytest.mark.parametrize("name", blocks())
def test_blocks(sandbox: Sandbox, tmp_path: Path, name: str) -> None:
    language, text = blocks()[name]
    place = sandbox.copy(tmp_path / "place")
    if language == "python":
        needs(text)
        assert sandbox.run(text, place, python=True).stdout
        return
    lines = [line for line in text.splitlines() if not LEFT_OUT.match(line)]
    sandbox.run("\n".join(lines).replace("s3://lab/wandb", MEANT["s3://lab/wandb"]), place)


@pytest.mark.parametrize("command", commands())
def test_commands_in_the_text(sandbox: Sandbox, tmp_path: Path, command: str) -> None:
    if command.rstrip().count(" ") == 1 and command.split()[1] in ("cache", "config", "daemon"):
        command += " --help"
    if found := re.fullmatch(r"wandbsync cache (backup|restore) \S+", command):
        command = "wandbsync cache backup copy"  # to a folder that is not there yet
        if found[1] == "restore":
            command += " && wandbsync --cache-dir restored cache restore copy"
    place = sandbox.copy(tmp_path / "place")
    if re.search(
        r"wandbsync (list-runs|list-metrics|list-files|download-plots|generate-plots|export|publish|sql)$", command
    ):
        command += " --help"  # it is named, not given
    sandbox.run(command, place)


def test_the_daemon_runs_until_it_is_stopped(sandbox: Sandbox, tmp_path: Path) -> None:
    place = sandbox.copy(tmp_path / "place")
    with sandbox.daemon(place) as daemon:
        sandbox.run("wandbsync daemon reload", place)
        sandbox.run("wandbsync daemon stop", place)
        assert daemon.wait(30) in (0, -signal.SIGTERM)
