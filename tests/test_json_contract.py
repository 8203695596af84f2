"""What `--json` prints has exactly the fields that SKILL.md promises: one that comes, goes or is renamed is noticed.

`FIELDS` in a section of SKILL.md: the words in backticks after `JSON`, those in parentheses of what stands before them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sandbox import ROOT, Sandbox, fill
from test_docs import commands, options
from wandb_server import Server

from wandbsync import config

SKILL = (ROOT / "SKILL.md").read_text()
Fields = dict[str, list[str]]  # "" for the outermost ones, else of what


def promised(section: str, after: str = "JSON") -> Fields:
    """The fields that a section of SKILL.md names."""
    found = re.search(rf"^### `wandbsync {re.escape(section)}`.*?\n(.*?)(?=^##)", SKILL, re.M | re.S)
    assert found, section
    start = rf"^{after}\b[^`]*" if after.startswith("JSON") else rf"^\| `{after}` \| "
    if after.startswith("JSON of"):
        start = rf"^{after}: "
    text = re.search(rf"{start}(.*?)(?:\n\n|\|\n)", found[1], re.M | re.S)
    assert text, (section, after)
    fields: Fields = {"": []}
    for name, inside in re.findall(r"`([^`]+)`(?: \(([^)]*)\))?", text[1]):
        fields[""].append(name)
        if "`" in inside:
            fields[name] = re.findall(r"`([^`]+)`", inside)
    return fields


def same(found: Any, fields: Fields) -> None:
    one = found[0] if isinstance(found, list) else found
    assert list(one) == fields[""] or sorted(one) == sorted(fields[""])
    for name, inner in fields.items():
        if name and one[name]:
            nested = one[name][0] if isinstance(one[name], list) else one[name]
            assert sorted(nested) == sorted(inner), name


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Server(teams=["my-team"]) as server:
        fill(server)
        yield Sandbox(tmp_path_factory.mktemp("json") / "template", server)


@pytest.fixture
def ask(sandbox: Sandbox, tmp_path: Path) -> Any:
    place = sandbox.copy(tmp_path / "place")
    return lambda words: json.loads(sandbox.run(f"wandbsync {words} --json", place).stdout)


ASKED = {
    "list-projects": "list-projects", "list-runs": "list-runs my-team/vision", "sync": "sync my-team/vision --full",
    "list-files": "list-files my-team/vision 3ti4gf13", "status": "status",
    "download-plots": "download-plots my-team/vision 3ti4gf13", "publish": "publish lake",
    "export": "export my-team/vision/3ti4gf13",
}  # fmt: skip
OTHERS = {"list-metrics", "generate-plots", "cache info", "cache verify", "cache gc", "config show", "sql"}


def test_every_command_with_json_is_asked() -> None:
    having = {name for name, command in commands().items() if "--json" in options(command)}
    assert having == set(ASKED) | OTHERS


@pytest.mark.parametrize("name", ASKED)
def test_fields(ask: Any, name: str) -> None:
    same(ask(ASKED[name]), promised(name))


def test_fields_of_the_daemon(sandbox: Sandbox, tmp_path: Path) -> None:
    place = sandbox.copy(tmp_path / "place")
    with sandbox.daemon(place):
        found = json.loads(sandbox.run("wandbsync status --json || true", place).stdout)
    same(found, promised("status"))
    parts = promised("status", "JSON of `daemon`")
    assert found["daemon"]["sources"] and found["daemon"]["jobs"] and found["daemon"]["server"]
    same({name: found["daemon"][name] for name in parts[""]}, parts)


def test_problems_of_a_sync(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "wandb/offline-run-20240101_000000-x").mkdir(parents=True)
    (tmp_path / "wandb/offline-run-20240101_000000-x/run-x.wandb").write_bytes(b"not a log at all")
    place = sandbox.copy(tmp_path / "place")
    done = sandbox.run(f"wandbsync sync --local {tmp_path} --json || true", place)
    found = json.loads(done.stdout)
    assert found["problems"]
    same(found, promised("sync"))


def test_fields_of_metrics(ask: Any) -> None:
    found, fields = ask("list-metrics demo demo-steady"), promised("list-metrics")[""]
    numbers = ["min", "max", "mean", "std", "nan_count", "infinite_count"]
    assert sorted(found["val/loss"]) == sorted(fields)
    assert sorted(found["boundary"]) == sorted(set(fields) - set(numbers))


def test_fields_of_plots(ask: Any) -> None:
    same(ask("generate-plots demo demo-steady --metrics val/loss"), promised("generate-plots", "--json"))


@pytest.mark.parametrize("name", ["cache info", "cache verify", "cache gc"])
def test_fields_of_the_cache(ask: Any, name: str) -> None:
    same(ask(name), promised("cache", f"JSON of `{name}`"))


def test_what_is_wrong_with_a_cache(sandbox: Sandbox, tmp_path: Path) -> None:
    place = sandbox.copy(tmp_path / "place")
    next((place / "cache/history").rglob("*.parquet")).unlink()
    found = json.loads(sandbox.run("wandbsync cache verify --json || true", place).stdout)
    assert not found["ok"]
    same(found, promised("cache", "JSON of `cache verify`"))


def test_fields_of_the_settings(ask: Any) -> None:
    assert set(ask("config show")) == {*config.KEYS, "file"}


def test_sql_names_its_columns(sandbox: Sandbox, tmp_path: Path) -> None:
    place = sandbox.copy(tmp_path / "place")
    done = sandbox.run('wandbsync sql "SELECT 1 AS a, NULL AS b" --json', place)
    assert json.loads(done.stdout) == [{"a": 1, "b": None}]
    schema = json.loads(sandbox.run("wandbsync sql --schema --json", place).stdout)
    same(schema["history"], promised("sql", "JSON of `--schema`"))
    assert "value_json" in [column["name"] for column in schema["history"]["columns"]]


LISTS = {
    "list-projects": "projects", "list-runs my-team/vision": "runs", "list-metrics my-team/vision 3ti4gf13": "metrics",
    "list-files my-team/vision 3ti4gf13": "files",
}  # fmt: skip


@pytest.mark.parametrize("words", LISTS)
def test_lists_are_short_and_say_so(sandbox: Sandbox, tmp_path: Path, words: str) -> None:
    place = sandbox.copy(tmp_path / "place")
    assert next(one.default for one in commands()[words.split()[0]].params if one.name == "limit") == 100
    for form in ("", " --json"):
        whole = sandbox.run(f"wandbsync {words} --limit 0{form}", place)
        short = sandbox.run(f"wandbsync {words} --limit 1{form}", place)
        assert len(short.stdout) < len(whole.stdout) and "--limit 0" not in whole.stderr
        assert re.search(rf"1 of \d+ {LISTS[words]} shown; --limit 0 shows all", short.stderr)
