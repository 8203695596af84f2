"""What the documents say exists: commands, flags, fields, files, settings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import bench
import chaos
import click
import pytest

import wandbsync
from wandbsync import config
from wandbsync.cli import main_group

ROOT = Path(__file__).parent.parent
SKILL = (ROOT / "SKILL.md").read_text()
README = (ROOT / "README.md").read_text()


def commands(group: click.Group = main_group, above: str = "") -> dict[str, click.Command]:
    """Every command by its words."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{above}{name} ")
        else:
            found[above + name] = command
    return found


def options(command: click.Command) -> set[str]:
    params = command.get_params(click.Context(command))
    return {flag for parameter in params if isinstance(parameter, click.Option) for flag in parameter.opts}


ALL_OPTIONS = set().union(*(options(command) for command in commands().values())) | options(main_group) | {"--version"}


@pytest.mark.parametrize("name", sorted(set(commands()) - {"demo"}))
def test_every_command_is_in_the_skill(name: str) -> None:
    assert f"wandbsync {name}" in SKILL


@pytest.mark.parametrize("text", [SKILL, README], ids=["SKILL.md", "README.md"])
def test_every_command_and_flag_named_exists(text: str) -> None:
    named = set(
        re.findall(
            r"wandbsync ((?:cache |config |daemon )?[a-z][a-z-]+)", re.sub(r"^#+.*$|^name:.*$", "", text, flags=re.M)
        )
    )
    prose = {"as", "keeps", "checkout", "makes", "and", "in"}
    assert {name for name in named if name not in commands() and name.split()[0] not in prose} <= {
        "cache",
        "config",
        "daemon",
    }
    ours = re.sub(r"systemctl .*", "", text)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours)) <= ALL_OPTIONS


def test_examples_use_flags_of_their_own_command() -> None:
    for text in (SKILL, README):
        for line in re.findall(r"^\s*wandbsync (.+?)(?:\s+#.*)?$", text, flags=re.M):
            words = line.split()
            name = " ".join(words[:2]) if words[0] in ("cache", "config", "daemon") else words[0]
            flags = {word for word in re.sub(r'"[^"]*"', "", line).split() if word.startswith("-") and word != "-"}
            assert flags <= options(commands()[name]), line


def test_every_flag_of_the_predecessor_is_there() -> None:
    old = {
        "list-projects": {"--entity", "--limit", "--json"},
        "list-runs": {"--state", "--limit", "--json"},
        "list-metrics": {"--include-system", "--json"},
        "generate-plots": {
            "--metrics", "--all-metrics", "--full-res", "--smooth", "--output", "--ema-weight", "--viewport-scale",
            "--no-ema", "--group-by-prefix", "--include-system",
        },
    }  # fmt: skip
    for name, flags in old.items():
        assert flags <= options(commands()[name])


def test_every_command_has_help_that_is_a_sentence() -> None:
    for name, command in commands().items():
        first = (command.help or "").strip().split("\n")[0]
        assert first.endswith((".", ":")) and first[0].isupper(), name


def test_skill_front_matter() -> None:
    match = re.match(r"---\nname: wandbsync\ndescription: \|\n((?:  .+\n)+)---\n", SKILL)
    assert match and "Use when you need to:" in match[1]


def test_the_skill_can_be_found_and_loaded() -> None:
    """Agents look for skills/<name>/SKILL.md; its folder has its name, and the description fits."""
    found = ROOT / "skills/wandbsync/SKILL.md"
    assert found.read_text() == SKILL and found.parent.name == "wandbsync"
    description = re.search(r"description: \|\n((?:  .+\n)+)", SKILL)
    assert description and len(description[1]) <= 1024
    assert len(SKILL.splitlines()) < 500


def test_the_plugin_manifests_say_what_the_package_says() -> None:
    plugin = json.loads((ROOT / ".claude-plugin/plugin.json").read_text())
    market = json.loads((ROOT / ".claude-plugin/marketplace.json").read_text())
    assert plugin["version"] == wandbsync.__version__
    assert [one["name"] for one in market["plugins"]] == [plugin["name"]] == ["wandbsync"]
    for one in market["plugins"]:
        assert one["source"].startswith("./") and (ROOT / one["source"] / "skills/wandbsync/SKILL.md").exists()
    assert re.fullmatch(r"[a-z0-9-]+", plugin["name"]) and market["owner"]["name"]


def test_files_named_in_the_documents_exist() -> None:
    for name in ("README.md", "SKILL.md", "AGENTS.md", "docs/api.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text()):
            assert ((ROOT / name).parent / target).exists(), (name, target)


def test_example_config_equals_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "wandbsync.toml"
    file.write_text(config.example())
    env = {"HOME": str(Path.home())}
    loaded = config.load(file, env=env)
    default = config.load(env={"XDG_CONFIG_HOME": str(tmp_path / "none")})
    names = ("cache_dir", "max_age", "max_size", "keep", "local_folders", "local_entity", "default_entity")
    for name in (*names, "pace", "paces", "scan", "metrics_port"):
        assert getattr(loaded, name) == getattr(default, name), name
    for key in config.KEYS:  # every key is in the example, set or commented out
        table, name = key.split(".")
        section = re.search(rf"\[{table}\](.*?)(?=\n\[|\Z)", config.example(), flags=re.S)
        assert section and re.search(rf"^(# )?{name} = ", section[1], flags=re.M), key


def test_the_examples_own_pace_is_read(tmp_path: Path) -> None:
    file = tmp_path / "wandbsync.toml"
    text = config.example()
    own = text[text.index('# [projects."') :]
    file.write_text(re.sub(r"^# (?=\[projects|poll)", "", own, flags=re.M))
    loaded = config.load(file, env={"HOME": str(Path.home())})
    assert [(name, pace.poll, pace.sweep) for name, pace in loaded.paces] == [("my-team/vision", 15.0, 21600.0)]


def test_the_packaged_version_is_the_changelogs() -> None:
    assert f"## {wandbsync.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_unit_starts_and_reloads_what_there_is() -> None:
    text = (ROOT / "config" / "wandbsync.service").read_text()
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    words = values["ExecStart"].removeprefix("%h/.local/bin/wandbsync ").split()
    command: click.Command = main_group
    for word in words:
        if word.startswith("-"):
            assert any(word in option.opts for option in command.params)
        else:
            assert isinstance(command, click.Group)
            command = command.commands[word]
    assert command.name == "run"
    assert values["Type"] == "exec" and values["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert float(values["TimeoutStopSec"]) > 5  # what it promises


def test_the_benchmarks_are_a_whole_record() -> None:
    """Every part is in it, every picture is there, and wandbsync is right where things go wrong."""
    text = (ROOT / "BENCHMARKS.md").read_text()
    measured = text.partition(bench.MARK)[2]
    assert all(f"## {title}\n" in measured for title, _ in bench.PARTS.values())
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", measured)
    assert len(pictures) == 5 and all((ROOT / picture).exists() for picture in pictures)
    wrong, _, harm = measured.partition("go wrong\n")[2].partition("## What harm makes of it\n")
    rows = [line.split(" | ") for line in wrong.splitlines() if line.startswith("| ")]
    assert len(rows) > 15 and all(row[-1].startswith("right") for row in rows[1:])
    harms = [line.split(" | ") for line in harm.splitlines() if line.startswith("| ")]
    assert {row[0].removeprefix("| ") for row in harms[1:]} == set(chaos.ROWS) and all(
        row[4] == "0" for row in harms[1:]
    )
