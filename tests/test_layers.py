"""Data moves to the right only, so imports point to the left: sources, plan, sync, cache, query, plot."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "wandbsync"
EVERYBODYS = {"model", "errors", "files", "terminal"}  # what all may import
# What each part may import of the package besides.
MAY_IMPORT = {
    "model": set(),
    "errors": set(),
    "files": set(),
    "terminal": set(),
    "sizes": set(),
    "config": {"plot", "sizes"},  # the names of the smoothings
    "sources": {"sources"},
    "plan": set(),
    "cache": {"cache", "sizes"},
    "sync": {"cache", "media", "plan", "sources"},
    "targets": set(),
    "watch": {"sources"},
    "status": {"cache"},
    "freshness": {"cache", "config", "query", "sources", "status", "sync", "targets"},
    "daemon": {"cache", "config", "lake", "plan", "sources", "status", "sync", "watch"},
    "query": {"cache", "targets"},
    "formats": {"formats", "output"},
    "lake": {"cache", "query"},
    "folder": {"folder"},
    "media": {"folder", "media"},
    "plot": {"folder", "plot"},
    "figures": {"cache", "plot", "query"},
    "library": {
        "cache",
        "config",
        "figures",
        "freshness",
        "plan",
        "plot",
        "query",
        "sources",
        "status",
        "sync",
        "targets",
    },
    "dropin": {"cache", "config", "folder", "freshness", "library", "media", "query", "sources"},
}
FACES = {
    "__init__",
    "__main__",
    "cli",
    "daemon",
    "demo",
    "dropin",
    "library",
}  # what asks; nothing that answers imports them
HEAVY = {"wandb", "duckdb", "pyarrow", "matplotlib", "numpy", "watchdog", "apscheduler", "google", "deltalake"}
# The files where a heavy library may be imported at the top: they are imported by whoever needs it.
HOMES = {"sources/values.py", "sources/wire.py", "sources/framing.py", "sources/runlog.py", "sources/vector.py"}


def names(path: Path, nodes: Iterable[ast.AST]) -> set[str]:
    """What these nodes of a file import of the package: cache.disk.sync, for the name `sync` of that file."""
    above = path.relative_to(PACKAGE).parts[:-1]
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("wandbsync.")}
        elif isinstance(node, ast.ImportFrom):
            base = ["wandbsync", *above[: len(above) - node.level + 1]] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            found |= {".".join([*module, alias.name]) for alias in node.names if module[0] == "wandbsync"}
    return {name.removeprefix("wandbsync.") for name in found} - {"__version__"}


def imported(path: Path) -> set[str]:
    """The parts of the package that a file imports, anywhere in it."""
    return {name.split(".")[0] for name in names(path, ast.walk(ast.parse(path.read_text())))}


def needed(path: Path) -> set[Path]:
    """The files of the package that a file imports, anywhere in it but for types alone."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            for one in ast.iter_child_nodes(node):
                yield from walk(one)

    found = set()
    for name in names(path, walk(ast.parse(path.read_text()))):
        whole = PACKAGE.joinpath(*name.split("."))
        places = (whole / "__init__.py", whole.with_suffix(".py"), whole.parent.with_suffix(".py"))
        found.add(next((one for one in places if one.exists()), whole.parent / "__init__.py"))
    return found - {path}


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_to_the_left(path: Path) -> None:
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if part in MAY_IMPORT:
        assert imported(path) - EVERYBODYS - {part} <= MAY_IMPORT[part]


def test_no_file_needs_one_that_needs_it() -> None:
    """A circle is an error that names its files."""
    TopologicalSorter({path: needed(path) for path in files()}).prepare()


def test_nothing_that_answers_knows_who_asks() -> None:
    for path in files():
        part = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if part not in FACES:
            assert not imported(path) & {"cli", "dropin", "library"}, path


def test_only_the_demo_imports_wandb() -> None:
    using = {
        str(path.relative_to(PACKAGE))
        for path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] == "wandb" for a in node.names))
        or (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "wandb")
    }
    assert using <= {"demo.py"}


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    place = str(path.relative_to(PACKAGE))
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
            assert (
                place in HOMES
                or place.startswith(("plot/", "sources/api/"))
                or not {n.split(".")[0] for n in names} & HEAVY
            ), place


@pytest.mark.parametrize(
    ("words", "never"),
    [
        (["--help"], HEAVY | {"sqlite3"}),
        (["list-runs", "--help"], HEAVY | {"sqlite3"}),
        (["list-projects", "--offline"], HEAVY),
        (["list-runs", "demo", "--offline"], HEAVY),
    ],
)
def test_light_commands_stay_light(words: list[str], never: set[str], tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom wandbsync.cli import main\nsys.argv = ['wandbsync', *sys.argv[1:]]\n"
        "os._exit = sys.exit  # or that would be all\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--cache-dir", str(tmp_path), *words], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.rsplit("LOADED", 1)[1].split())
    assert not loaded & never
