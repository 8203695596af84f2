"""The library of download-plots: which files, under which names, and that what shows is whole, come what may."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from wandb_server import Server
from wandb_server.store import Run

from wandbsync.errors import ExpiredURL, NotSignedIn, ServerError, Stopped, Unreachable, UsageError, WandbsyncError
from wandbsync.folder.metadata import change, locked
from wandbsync.folder.names import NamedRun, folded
from wandbsync.folder.scratch import scratch
from wandbsync.media import (
    COPIED,
    DOWNLOADED,
    FAILED,
    IMAGES,
    UNCHANGED,
    FileResult,
    Link,
    choose,
    download,
    flat_names,
)
from wandbsync.media.globs import matches
from wandbsync.media.names import owner
from wandbsync.model import FileRecord, RunRef
from wandbsync.plot import PlotOptions, PlotRun, Source, generate

RUN = NamedRun("me", "demo", "abc123", "brave-sun-7")
NOW = datetime(2024, 5, 17, 12, 30)
FOLDER = Path("wandb_plots/me_demo/brave-sun-7_abc123")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


class Machine:
    """A folder, a cache and a way to the server: `get` is what the command does."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.out, self.media = server, folder / "out", folder / "cache" / "media"
        self.asked: list[list[str]] = []

    def has(self, files: dict[str, bytes], run_id: str = "abc123") -> Run:
        """Files for a run on the server, which is made with the first."""
        found = self.server.store.run("me", "demo", run_id)
        run = found or self.server.add_run("me", "demo", run_id)
        for name, data in files.items():
            run.put(name, data)
        return run

    def listing(self, run_id: str = "abc123") -> list[FileRecord]:
        return [
            FileRecord(file.name, file.size_bytes, file.updated_at.timestamp(), file.mimetype, file.md5)
            for file in self.server.run("me", "demo", run_id).files.values()
        ]

    def urls(self, names: Sequence[str], run_id: str = "abc123") -> dict[str, str]:
        self.asked.append(list(names))
        there = self.server.run("me", "demo", run_id).files
        return {name: self.server.signer.url("files", "me", "demo", run_id, name) for name in names if name in there}

    def get(self, patterns: Sequence[str] = (), run: NamedRun = RUN, **more: Any) -> list[FileResult]:
        chosen = more.pop("chosen", None)
        if chosen is None:
            chosen = choose(self.listing(run.run_id), patterns)
        how = {
            "urls": lambda names: self.urls(names, run.run_id),
            "fetch": fetch,
            "media": self.media,
            "now": NOW,
            "patterns": patterns,
        }
        return download(run, chosen, more.pop("folder", self.out), **(how | more))

    @property
    def metadata(self) -> dict[str, Any]:
        return json.loads((self.out / "metadata.json").read_text())

    @property
    def shown(self) -> dict[str, bytes]:
        """What somebody sees who looks into the folder, metadata.json apart."""
        return {path.name: path.read_bytes() for path in self.out.glob("[!.]*") if path.name != "metadata.json"}

    @property
    def downloads(self) -> int:
        return self.server.counts["download"].requests if "download" in self.server.counts else 0


@pytest.fixture
def machine(server: Server, tmp_path: Path) -> Machine:
    return Machine(server, tmp_path)


def fetch(url: str, path: Path) -> int:
    with requests.Session() as session:
        session.trust_env = False
        with session.get(url, stream=True, timeout=20) as answer:
            if answer.status_code in (400, 401, 403, 404, 410):
                raise ExpiredURL(f"{answer.status_code}")
            answer.raise_for_status()
            with open(path, "wb") as file:
                return sum(file.write(chunk) for chunk in answer.iter_content(1 << 16))


def outcomes(results: Sequence[FileResult]) -> list[str]:
    return [result.outcome for result in results]


def file(name: str, **more: Any) -> FileRecord:
    return FileRecord(name, **({"size": 1} | more))


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


# --- which files


@pytest.mark.parametrize(
    ("pattern", "names", "others"),
    [
        (
            "*.png",
            ["a.png", "x/a.png", "media/images/a/b.png", ".hidden.png", "/etc/x.png", "../x.png"],
            ["a.PNG", "png"],
        ),
        ("/*.png", ["a.png"], ["x/a.png"]),
        ("./*.png", ["a.png"], ["x/a.png"]),
        ("media/*.png", ["media/a.png"], ["a.png", "media/x/a.png", "x/media/a.png"]),
        ("media/**/*.png", ["media/a.png", "media/x/a.png", "media/x/y/z/a.png"], ["a.png", "medias/a.png"]),
        ("**/images/*", ["images/a", "media/images/a"], ["media/images/a/b", "images"]),
        ("media/**", ["media/a", "media/a/b"], ["media", "x/media/a"]),
        ("media/images/", ["media/images/a", "media/images/a/b"], ["media/images", "media/a"]),
        ("**", ["a", "a/b", ""], []),
        ("**/*", ["a", "a/b"], []),
        ("a/**/b/**/c", ["a/b/c", "a/x/b/y/z/c", "a/b/b/c"], ["a/c", "a/b", "b/c"]),
        ("a**z", ["abcz", "x/az"], ["a/z"]),
        ("loss_?.png", ["loss_1.png", "x/loss_1.png"], ["loss_10.png", "loss_.png"]),
        ("[ab].png", ["a.png", "x/b.png"], ["c.png", "ab.png"]),
        ("[!ab].png", ["c.png"], ["a.png"]),
        ("[ab.png", ["[ab.png"], ["a.png"]),
        ("[[]x].png", ["[x].png"], ["x.png"]),
        ("media/*/a.png", ["media/x/a.png", "media//a.png"], ["media/a.png", "media/x/y/a.png"]),
        ("a\\b.png", ["a\\b.png", "x/a\\b.png"], ["a/b.png"]),
    ],
)
def test_globs(pattern: str, names: list[str], others: list[str]) -> None:
    for name in names:
        assert matches(name, pattern), (name, pattern)
    for name in others:
        assert not matches(name, pattern), (name, pattern)


def test_the_default_is_images_anywhere_in_any_case() -> None:
    images = [
        "a.png",
        "media/images/a_1_ab.jpg",
        "media/images/deep/er/b.JPEG",
        "plots/c.Gif",
        "d.webp",
        "e.svg",
        "f.bmp",
    ]
    images += ["figures/g.tif", "h.TIFF", ".png", "../../i.png"]
    others = ["config.yaml", "media/table/a.table.json", "a.png.txt", "png", "a.pdf", "apng", "media/html/a.html"]
    for patterns in ([], IMAGES):
        chosen = choose([file(name) for name in [*others, *images]], patterns)
        assert [one.name for one in chosen] == images


def test_several_patterns_choose_each_file_once_in_the_order_of_the_listing() -> None:
    files = [file(name) for name in ("b.png", "a.json", "c.txt", "a.png")]
    assert [one.name for one in choose(files, ["a.*", "*.png"])] == ["b.png", "a.json", "a.png"]
    twice = [file("a.png", md5="old"), file("b.png"), file("a.png", md5="new")]
    assert [(one.name, one.md5) for one in choose(twice, [])] == [("a.png", "new"), ("b.png", None)]
    with pytest.raises(UsageError, match="empty pattern"):
        choose(files, ["*.png", ""])


def test_a_hostile_name_does_not_hold_up_a_pattern() -> None:
    began = time.monotonic()
    assert not matches("a" * 200_000, "*a*a*a*a*a*a*b")
    assert not matches("a/" * 2_000, "**/a/**/a/**/a/**/b")
    assert time.monotonic() - began < 5


# --- names


def flats(*names: str, **more: Any) -> list[str]:
    return list(flat_names([file(name) for name in names], RUN, **more).values())


@pytest.mark.parametrize(
    ("name", "flat"),
    [
        ("loss.png", "loss.png"),
        ("media/images/loss_10_ab12.png", "loss_10_ab12.png"),
        ("media/images/val/pred ü.png", "pred ü.png"),
        ("../x", "x"),
        ("../../../etc/passwd", "passwd"),
        ("/etc/x", "x"),
        ("a\\b", "a_b"),
        ("..\\..\\x.png", "___.._x.png"),
        ("C:x", "C_x"),
        ("C:\\x.png", "C__x.png"),
        ("x.png\0.txt", "x.png_.txt"),
        ("a\nb\x1b[31m.png", "a_b_[31m.png"),
        ("..", "__"),
        (".", "_"),
        ("", "unnamed"),
        ("a/", "a_"),
        (".bashrc", "_bashrc"),
        ("NUL", "_NUL"),
        ("con.png", "_con.png"),
        ("com1.tar.gz", "_com1.tar.gz"),
        ("console.png", "console.png"),
        ("x.", "x_"),
        ("what?*.png", "what__.png"),
        ("\u202egnp.exe", "_gnp.exe"),
        ("\ud800.png", "_.png"),
    ],
)
def test_one_name(name: str, flat: str) -> None:
    assert flats(name) == [flat]


NAMES = st.lists(
    st.one_of(
        st.text(max_size=300),
        st.text(alphabet="aAbB./\\_-:é\u0301 \0", max_size=12),
        st.sampled_from(["a/x.png", "b/x.png", "x.png", "X.PNG", "metadata.json", "METADATA.json", "x.png.replaced"]),
    ),
    max_size=12,
    unique=True,
)


@given(NAMES, NAMES)
def test_names_are_legal_distinct_and_stay(names: list[str], later: list[str]) -> None:
    given_names = flat_names([file(name) for name in names], RUN)
    assert list(given_names) == names
    for flat in given_names.values():
        assert 0 < len(flat.encode()) <= 200
        assert not {unicodedata.category(char) for char in flat} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
        assert not set(flat) & set('/\\:*?"<>|') and not flat.startswith(".") and not flat.endswith((".", " "))
        assert Path("out", flat).resolve().parent == Path("out").resolve()
        assert flat.casefold() != "metadata.json" and not flat.casefold().endswith(".replaced")
    assert len({folded(flat) for flat in given_names.values()}) == len(names)
    assert flat_names([file(name) for name in reversed(names)], RUN) == given_names
    taken = {flat: owner(RUN, name) for name, flat in given_names.items()}
    more = flat_names([file(name) for name in [*later, *names]], RUN, taken)
    assert {name: more[name] for name in names} == given_names
    assert len({folded(flat) for flat in more.values()}) == len({*names, *later})


def test_files_that_differ_by_folder_or_case_get_names_of_their_own() -> None:
    first, second, third = flats("b/x.png", "a/x.png", "x.png")
    assert third == "x.png"
    assert first.startswith("b_x-") and second.startswith("a_x-") and second.endswith(".png")
    assert len({name.lower() for name in flats("a/Loss.png", "a/loss.png", "a/LOSS.PNG")}) == 3
    assert len(set(flats("a/b/c.png", "a_b/c.png", "c.png"))) == 3
    assert len(set(flats("x/e\u0301.png", "x/\u00e9.png"))) == 2  # one name on a Mac
    assert len({*flats(*(f"{'d' * 250}{i}/{'x' * 250}.png" for i in range(9)))}) == 9


def test_a_name_in_a_run_is_not_the_same_name_in_another() -> None:
    other = NamedRun("me", "demo", "other")
    taken = {"x.png": owner(other, "x.png")}
    (flat,) = flats("x.png", taken=taken)
    assert flat.startswith("x-") and flat.endswith(".png")
    assert flat_names([file("x.png")], other, taken) == {"x.png": "x.png"}


def test_a_name_that_was_given_stays_when_the_plain_one_is_free_again() -> None:
    first, second = flats("a/x.png", "b/x.png")
    assert first == "x.png" and flats("b/x.png", taken={second: owner(RUN, "b/x.png")}) == [second]


@pytest.mark.parametrize("evil", ["../x.png", "/tmp/x.png", "metadata.json", "..", "a/b.png", "", ".x.png"])
def test_names_in_metadata_are_not_trusted(evil: str) -> None:
    assert flats("x.png", taken={evil: owner(RUN, "x.png")}) == ["x.png"]


# --- downloading


def test_download_and_again(machine: Machine) -> None:
    files = {"media/images/a_1.png": b"A", "plots/b.PNG": b"BB", "media/images/deep/c.jpg": b"", "config.yaml": b"no"}
    machine.has(files)
    told: list[FileResult] = []
    results = machine.get(tell=told.append)
    assert [(r.file.name, r.outcome, r.path, r.bytes) for r in results] == [
        ("media/images/a_1.png", DOWNLOADED, machine.out / "a_1.png", 1),
        ("plots/b.PNG", DOWNLOADED, machine.out / "b.PNG", 2),
        ("media/images/deep/c.jpg", DOWNLOADED, machine.out / "c.jpg", 0),
    ]
    assert sorted(told, key=lambda r: r.file.name) == sorted(results, key=lambda r: r.file.name)
    assert machine.shown == {"a_1.png": b"A", "b.PNG": b"BB", "c.jpg": b""}
    assert machine.asked == [["media/images/a_1.png", "plots/b.PNG", "media/images/deep/c.jpg"]]
    found = machine.metadata
    assert {key: found[key] for key in ("run_id", "run_name", "entity", "project", "pattern_used")} == {
        "run_id": "abc123", "run_name": "brave-sun-7", "entity": "me", "project": "demo", "pattern_used": "auto"
    }  # fmt: skip
    assert found["download_timestamp"] == NOW.isoformat()
    assert found["files_downloaded"] == ["a_1.png", "b.PNG", "c.jpg"] and found["file_count"] == 3
    entry = found["files"]["b.PNG"]
    assert (entry["run"], entry["name"], entry["size"], entry["md5"]) == (
        "me/demo/abc123",
        "plots/b.PNG",
        2,
        md5(b"BB"),
    )

    before = {path.name: path.stat() for path in machine.out.iterdir()}
    machine.server.reset_counts()
    again = machine.get()
    assert outcomes(again) == [UNCHANGED] * 3 and len(machine.asked) == 1 and not machine.server.requests
    assert {path.name: path.stat() for path in machine.out.iterdir()} == before
    assert [result.md5 for result in again] == [md5(b"A"), md5(b"BB"), md5(b"")]


def test_the_default_folder(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    machine.has({"a.png": b"A"})
    (result,) = machine.get(folder=None)
    assert result.path == FOLDER / "a.png" and result.path.read_bytes() == b"A"


def test_nothing_to_download_touches_nothing(machine: Machine) -> None:
    machine.has({"config.yaml": b"x"})
    assert machine.get() == [] and not machine.out.exists() and not machine.media.exists()


def test_what_changed_is_fetched_and_force_fetches_all(machine: Machine) -> None:
    machine.has({"a.png": b"old", "b.png": b"B"})
    machine.get()
    machine.has({"a.png": b"new"})
    assert outcomes(machine.get()) == [DOWNLOADED, UNCHANGED]
    assert machine.shown == {"a.png": b"new", "b.png": b"B"}
    machine.server.reset_counts()
    assert outcomes(machine.get(force=True)) == [DOWNLOADED, DOWNLOADED] and machine.downloads == 2
    assert machine.shown == {"a.png": b"new", "b.png": b"B"}
    assert machine.metadata["files"]["a.png"]["md5"] == md5(b"new")


@pytest.mark.parametrize("damage", [b"", b"ol", b"xxx", b"olde"])
def test_a_file_that_was_damaged_here_is_mended(machine: Machine, damage: bytes) -> None:
    machine.has({"a.png": b"old"})
    machine.get()
    (machine.out / "a.png").write_bytes(damage)
    assert outcomes(machine.get()) == [COPIED]  # the cache has it
    (machine.out / "a.png").write_bytes(damage)
    kept = machine.media / hashlib.md5(b"old").hexdigest()[:2] / hashlib.md5(b"old").hexdigest()
    kept.write_bytes(damage)
    assert outcomes(machine.get()) == [DOWNLOADED]
    assert machine.shown == {"a.png": b"old"} and kept.read_bytes() == b"old"


def test_what_was_fetched_is_kept_for_another_folder_and_offline(machine: Machine, tmp_path: Path) -> None:
    machine.has({"a.png": b"A", "b.png": b"B"})
    machine.get(["a.png"])
    kept = machine.media / hashlib.md5(b"A").hexdigest()[:2] / hashlib.md5(b"A").hexdigest()
    assert kept.read_bytes() == b"A" and kept.parent.stat().st_mode & 0o077 == 0
    machine.server.reset_counts()
    a, b = machine.get(folder=tmp_path / "other", urls=None)
    assert (a.outcome, b.outcome) == (COPIED, FAILED) and a.path == tmp_path / "other" / "a.png"
    assert b.error and b.error.exit_code == 5 and "--offline" in b.error.line()
    (a,) = machine.get(["a.png"], folder=tmp_path / "third", urls=None, force=True)
    assert a.outcome == COPIED and not machine.server.requests
    (tmp_path / "third" / "a.png").write_bytes(b"mine now")  # a copy, not the cache's own file
    assert kept.read_bytes() == b"A"


def test_a_cache_that_cannot_be_written_is_told_and_does_no_harm(machine: Machine) -> None:
    machine.media.parent.mkdir()
    machine.media.write_text("in the way")
    machine.has({"a.png": b"A"})
    (result,) = machine.get()
    assert result.outcome == DOWNLOADED and machine.shown == {"a.png": b"A"}
    assert result.note and result.note.startswith("not kept in the cache: ")
    assert outcomes(machine.get(media=None)) == [UNCHANGED]


def test_hex_and_odd_checksums(machine: Machine) -> None:
    machine.has({"a.png": b"A", "b.png": b"B", "c.png": b"C"})
    a, b, c = machine.listing()
    chosen = [replace(a, md5=hashlib.md5(b"A").hexdigest()), replace(b, md5="no checksum"), replace(c, md5="")]
    assert outcomes(machine.get(chosen=chosen)) == [DOWNLOADED] * 3
    assert outcomes(machine.get(chosen=chosen)) == [UNCHANGED] * 3
    (machine.out / "a.png").write_bytes(b"x")
    (machine.out / "b.png").write_bytes(b"x")
    assert outcomes(machine.get(chosen=chosen)) == [COPIED, DOWNLOADED, UNCHANGED]


def test_without_a_checksum_size_and_time_decide(machine: Machine) -> None:
    machine.has({"a.png": b"A"})
    chosen = [replace(one, md5=None) for one in machine.listing()]
    assert outcomes(machine.get(chosen=chosen)) == [DOWNLOADED]
    assert outcomes(machine.get(chosen=chosen)) == [UNCHANGED]
    later = [replace(one, updated_at=(one.updated_at or 0) + 1) for one in chosen]
    assert outcomes(machine.get(chosen=later)) == [DOWNLOADED]
    assert outcomes(machine.get(chosen=later)) == [UNCHANGED]
    for time_unknown in (None, 1e30):
        unknown = [replace(one, updated_at=time_unknown) for one in chosen]
        assert outcomes(machine.get(chosen=unknown)) == [DOWNLOADED]
        assert outcomes(machine.get(chosen=unknown)) == [DOWNLOADED]
    assert outcomes(machine.get(chosen=later)) == [DOWNLOADED]
    (machine.out / "metadata.json").unlink()
    assert outcomes(machine.get(chosen=later)) == [DOWNLOADED]
    assert machine.shown == {"a.png": b"A"}  # the same bytes came again: nobody else's file was in the way


def test_nasty_names_stay_inside(machine: Machine, tmp_path: Path) -> None:
    evil = ["../x.png", "../../x.png", "/etc/x.png", "a\\b.png", "C:x.png", "nul\0.png", "y" * 3000 + ".png", "..png"]
    evil += [
        "media/images/../../../../x.png",
        "/",
        "..",
        "metadata.json",
        ".",
        "sub/metadata.json",
        "-rf.png",
        "~/x.png",
    ]
    machine.has({name: name.encode() for name in evil})

    def urls(names: Sequence[str]) -> dict[str, str]:  # HTTP clients would tidy up addresses such as these
        return {name: str(evil.index(name)) for name in names}

    results = machine.get(["**"], urls=urls, fetch=lambda url, path: path.write_bytes(evil[int(url)].encode()))
    assert outcomes(results) == [DOWNLOADED] * len(evil)
    for result in results:
        assert result.path and result.path.parent == machine.out
        assert result.path.read_bytes() == result.file.name.encode()
    assert len(list(machine.out.iterdir())) == len(evil) + 1
    assert {path.name for path in tmp_path.iterdir()} == {"out", "cache"}
    assert {entry["name"] for entry in machine.metadata["files"].values()} == set(evil)
    assert outcomes(machine.get(["**"])) == [UNCHANGED] * len(evil)


def test_names_stay_when_files_come_and_go(machine: Machine) -> None:
    machine.has({"val/x.png": b"val"})
    machine.get()
    machine.has({"train/x.png": b"train", "x.png": b"top", "VAL/X.png": b"VAL"})
    machine.get()
    del machine.server.run("me", "demo", "abc123").files["val/x.png"]
    results = machine.get()
    assert outcomes(results) == [UNCHANGED] * 3
    assert machine.shown["x.png"] == b"val" and len({name.lower() for name in machine.shown}) == 4
    assert sorted(machine.shown.values()) == [b"VAL", b"top", b"train", b"val"]


def test_two_runs_in_one_folder(machine: Machine) -> None:
    other = NamedRun("me", "demo", "other", "calm-sea-8")
    machine.has({"x.png": b"one"})
    machine.has({"x.png": b"two"}, "other")
    (first,) = machine.get()
    (second,) = machine.get(run=other)
    assert first.path == machine.out / "x.png" and second.path != first.path
    assert sorted(machine.shown.values()) == [b"one", b"two"]
    assert machine.metadata["run_id"] == "other"
    assert outcomes([*machine.get(), *machine.get(run=other)]) == [UNCHANGED] * 2


# --- beside plots, predecessors and other people's files


def draw(folder: Path, *metrics: str, **options: Any) -> list[Path]:
    results = generate(
        [PlotRun(RUN.entity, RUN.project, RUN.run_id, RUN.display_name)],
        metrics,
        PlotOptions(output=folder, **options),
        Source(lambda run, metric, axis: (np.arange(2), np.array([1.0, 2.0]))),
        now=NOW,
    )
    return [result.path for result in results if result.path]


def test_plots_and_downloads_share_a_folder(machine: Machine) -> None:
    machine.has({"loss.png": b"logged", "a.png": b"A"})
    (plot,) = draw(machine.out, "loss")
    drawn = plot.read_bytes()
    loss, _ = machine.get()
    assert loss.path and loss.path != plot and loss.path.name.startswith("loss-")
    assert plot.read_bytes() == drawn
    (other,) = draw(machine.out, "a")
    assert other.name != "a.png" and machine.shown["a.png"] == b"A"
    assert draw(machine.out, "loss") == [plot]
    found = machine.metadata
    assert found["plots_generated"] == ["loss.png", other.name] and found["plot_count"] == 2
    assert found["files_downloaded"] == [loss.path.name, "a.png"] and found["file_count"] == 2
    assert found["plots"]["loss.png"]["metric"] == "loss" and found["generation_timestamp"]
    assert outcomes(machine.get()) == [UNCHANGED] * 2


def test_a_folder_of_plots_is_no_name_for_a_file(machine: Machine) -> None:
    machine.has({"loss": b"logged"})
    draw(machine.out, "loss/a", group_by_prefix=True)
    (result,) = machine.get(["loss"])
    assert result.outcome == DOWNLOADED and (machine.out / "loss").is_dir()


def test_what_the_predecessor_downloaded_is_known(machine: Machine) -> None:
    machine.has({"media/images/a.png": b"new", "b.png": b"B"})
    machine.out.mkdir()
    (machine.out / "a.png").write_bytes(b"old")
    (machine.out / "b.png").write_bytes(b"B")
    before = {"run_id": "abc123", "files_downloaded": ["a.png", "b.png"], "file_count": 2, "notes": "mine"}
    (machine.out / "metadata.json").write_text(json.dumps(before))
    assert outcomes(machine.get()) == [DOWNLOADED, UNCHANGED]
    assert machine.shown == {"a.png": b"new", "b.png": b"B"}
    assert machine.metadata["notes"] == "mine" and machine.metadata["file_count"] == 2
    assert draw(machine.out, "b")[0].name != "b.png"


def test_somebody_elses_file_is_kept(machine: Machine) -> None:
    machine.has({"a.png": b"A", "b.png": b"B"})
    machine.out.mkdir()
    (machine.out / "a.png").write_bytes(b"mine")
    (machine.out / "b.png").write_bytes(b"B")
    a, b = machine.get()
    assert (a.outcome, b.outcome) == (DOWNLOADED, UNCHANGED) and a.note == "what was there is a.png.replaced now"
    assert machine.shown == {"a.png": b"A", "a.png.replaced": b"mine", "b.png": b"B"}
    (machine.out / "a.png").write_bytes(b"mine too")
    (machine.out / "metadata.json").unlink()
    machine.get()
    assert machine.shown["a.png.replaced-2"] == b"mine too" and machine.shown["a.png"] == b"A"


def test_links_in_the_folder_are_not_followed(machine: Machine, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(b"A")
    (outside / "b.png").write_bytes(b"secret")
    machine.out.mkdir()
    for name in ("a.png", "b.png"):
        (machine.out / name).symlink_to(outside / name)
    (machine.out / ".wandbsync-0123").symlink_to(outside)
    machine.has({"a.png": b"A", "b.png": b"B", "c.png": b"C"})
    assert outcomes(machine.get()) == [DOWNLOADED] * 3
    for name in ("a.png", "b.png"):
        aside = machine.out / f"{name}.replaced"
        assert aside.readlink() == outside / name
        aside.unlink()
    for name in ("a.png", "b.png", "c.png"):
        assert not (machine.out / name).is_symlink()
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"a.png": b"A", "b.png": b"secret"}
    (machine.out / "c.png").unlink()
    (machine.out / "c.png").symlink_to(outside / "new.png")  # now it is known as ours
    assert outcomes(machine.get()) == [UNCHANGED, UNCHANGED, COPIED]
    assert not (outside / "new.png").exists() and machine.shown["c.png"] == b"C"


def test_something_in_the_way(machine: Machine, tmp_path: Path) -> None:
    machine.has({"a.png": b"A", "b.png": b"B"})
    (machine.out / "a.png" / "inside").mkdir(parents=True)
    a, b = machine.get()
    assert (a.outcome, b.outcome) == (FAILED, DOWNLOADED)
    assert a.error and "Is a directory" in a.error.line() and a.path is None
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="is not a folder"):
            machine.get(folder=folder)


def test_a_folder_that_cannot_be_made(machine: Machine) -> None:
    machine.has({"a.png": b"A"})
    with pytest.raises(WandbsyncError, match=r"cannot use the folder /proc/nowhere/out: "):
        machine.get(folder=Path("/proc/nowhere/out"))


@pytest.mark.parametrize(
    "damage",
    [
        b"{",
        b"[]",
        b"\xff",
        b'{"files": 5, "files_downloaded": {}, "plots": [1]}',
        b'{"files": {"a.png": 3, "../b.png": {"run": "me/demo/abc123", "name": "a.png"}}}',
    ],
)
def test_a_damaged_metadata_file_is_no_obstacle(machine: Machine, damage: bytes, tmp_path: Path) -> None:
    machine.has({"a.png": b"A"})
    machine.out.mkdir()
    (machine.out / "metadata.json").write_bytes(damage)
    (result,) = machine.get()
    assert result.path == machine.out / "a.png" and machine.metadata["files"]["a.png"]["size"] == 1
    assert (machine.out / "metadata.json.damaged").exists() == (damage in (b"{", b"[]", b"\xff"))
    assert not (tmp_path / "b.png").exists()


# --- local runs


def test_files_of_a_local_run_are_copied_without_a_network(machine: Machine, tmp_path: Path) -> None:
    source = tmp_path / "wandb" / "files" / "media" / "images" / "a.png"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"A")
    chosen = [file("media/images/a.png", size=1, updated_at=source.stat().st_mtime, local_path=str(source))]

    def get(**more: Any) -> FileResult:
        (result,) = machine.get(chosen=chosen, urls=None, **more)
        return result

    assert get().outcome == COPIED and machine.shown == {"a.png": b"A"}
    assert get().outcome == UNCHANGED and get(force=True).outcome == COPIED
    source.write_bytes(b"it grew since it was listed")
    result = get()
    assert result.outcome == COPIED and result.file.size == 27
    assert machine.shown == {"a.png": b"it grew since it was listed"}
    assert get().outcome == UNCHANGED
    (machine.out / "a.png").write_bytes(b"it grew since it was LISTED")
    assert get().outcome == COPIED
    source.unlink()
    gone = get()
    assert gone.outcome == FAILED and gone.error and "No such file" in gone.error.line()
    assert machine.shown == {"a.png": b"it grew since it was listed"}  # better an old one than none
    os.mkfifo(source)
    assert get().outcome == FAILED
    assert not machine.media.exists() and not machine.server.requests


def test_a_local_file_that_is_not_the_servers_is_fetched(machine: Machine, tmp_path: Path) -> None:
    machine.has({"a.png": b"A", "b.png": b"B"})
    (tmp_path / "a").write_bytes(b"A")
    (tmp_path / "b").write_bytes(b"b")
    chosen = [replace(one, local_path=str(tmp_path / one.name[0])) for one in machine.listing()]
    assert outcomes(machine.get(chosen=chosen)) == [COPIED, DOWNLOADED]
    assert machine.shown == {"a.png": b"A", "b.png": b"B"} and machine.asked == [["b.png"]]


def test_a_local_file_that_is_being_written(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandbsync.media import content

    source, copies, copy = tmp_path / "a.png", 0, content.copy

    def restless(source: Path, to: Path) -> content.Content:
        nonlocal copies
        copies += 1
        found = copy(source, to)
        if copies < until:
            source.write_bytes(source.read_bytes() + b"+")
        return found

    monkeypatch.setattr(content, "copy", restless)
    chosen = [file("a.png", local_path=str(source))]
    for until, outcome in ((3, COPIED), (9, FAILED)):
        copies = 0
        source.write_bytes(b"A" * until)
        (result,) = machine.get(chosen=chosen, urls=None)
        assert result.outcome == outcome
    assert result.error and "changed while it was copied" in result.error.line()
    assert machine.shown == {"a.png": b"AAA++"}


# --- what goes wrong on the way


def test_expired_addresses_are_asked_for_once_more(machine: Machine) -> None:
    machine.has({"a.png": b"A", "b.png": b"B"})
    stale = machine.urls(["a.png", "b.png"])
    machine.server.expire_urls()
    machine.asked.clear()
    first = iter([stale])
    results = machine.get(urls=lambda names: next(first, None) or machine.urls(names))
    assert outcomes(results) == [DOWNLOADED] * 2
    assert sorted(machine.asked) == [["a.png"], ["b.png"]]
    again = machine.get(force=True, urls=lambda names: stale)  # always void
    assert outcomes(again) == [FAILED] * 2 and isinstance(again[0].error, ExpiredURL)
    assert machine.shown == {"a.png": b"A", "b.png": b"B"}


@pytest.mark.parametrize(
    "fault", [{"truncate": 3}, {"reset": "after"}, {"status": 500}, {"status": 200, "body": b"<html>"}]
)
def test_a_failing_file_does_not_stop_the_others(machine: Machine, fault: dict[str, Any]) -> None:
    machine.has({f"{i}.png": b"0123456789" + bytes([i]) for i in range(6)})
    machine.server.fail("download", times=None, skip=3, **fault)
    results = machine.get(workers=1)
    assert outcomes(results) == [DOWNLOADED] * 3 + [FAILED] * 3
    assert sorted(machine.shown) == ["0.png", "1.png", "2.png"]
    assert machine.metadata["files"].keys() == machine.metadata["files"].keys() & machine.shown.keys()
    for result in results[3:]:
        assert result.error and "signature" not in result.error.line() and "://" not in result.error.line()
    machine.server.calm()
    assert outcomes(machine.get()) == [UNCHANGED] * 3 + [DOWNLOADED] * 3


def test_over_our_own_transport(machine: Machine) -> None:
    """What the command does: addresses by GraphQL, bytes without the key; faults that pass are not even noticed."""
    from wandbsync.sources.api.budget import Budget
    from wandbsync.sources.api.client import Api
    from wandbsync.sources.api.credentials import Login
    from wandbsync.sources.api.transport import Transport

    files = {f"media/images/{i}.png": os.urandom(1000) for i in range(150)}
    machine.has(files)
    login = Login(machine.server.url, machine.server.key, None)
    transport = Transport(login, Budget())
    try:
        api = Api(login, transport)
        ref = RunRef(RUN.entity, RUN.project, RUN.run_id)
        how = {"urls": lambda names: api.file_urls(ref, names), "fetch": api.download}
        machine.server.fail("download", truncate=100)
        for skip in (10, 90):
            machine.server.fail("download", status=403, skip=skip)
        machine.server.reset_counts()
        results = machine.get(**how)
        assert outcomes(results) == [DOWNLOADED] * 150
        assert machine.shown == {name.rpartition("/")[2]: data for name, data in files.items()}
        downloads = [request for request in machine.server.requests if request.operation == "download"]
        assert len(downloads) == 150 + 1 + 2 and not any("Authorization" in request.headers for request in downloads)
        asked = [request.variables["fileNames"] for request in machine.server.requests if request not in downloads]
        assert sorted(map(len, asked)) == [1, 1, 50, 100], [(r.status, r.bytes_out, r.path[:60]) for r in downloads]
        machine.server.key = "another"
        assert outcomes(machine.get(**how)) == [UNCHANGED] * 150
        machine.has({"new.png": b"new"})
        results = machine.get(**how)
        assert outcomes(results) == [UNCHANGED] * 150 + [FAILED] and isinstance(results[-1].error, NotSignedIn)
    finally:
        transport.close()


@pytest.mark.parametrize("body", [b"", b"short", b"0123456780", b"0123456789 and more"])
def test_bytes_that_do_not_fit_are_never_shown(machine: Machine, body: bytes) -> None:
    machine.has({"a.png": b"0123456789"})

    def careless(url: str, path: Path) -> int:
        return path.write_bytes(body)

    (result,) = machine.get(fetch=careless)
    assert result.outcome == FAILED and result.error and "what came for a.png has" in result.error.line()
    assert not machine.out.exists() and len(machine.asked) == 2
    if len(body) != 10:  # the size is all there is to go by
        (result,) = machine.get(fetch=careless, chosen=[replace(one, md5=None) for one in machine.listing()])
        assert result.outcome == FAILED and not machine.out.exists()
        machine.asked.clear()
    good = iter([body, b"0123456789"])
    (result,) = machine.get(fetch=lambda url, path: path.write_bytes(next(good)))
    assert result.outcome == DOWNLOADED and machine.shown == {"a.png": b"0123456789"}


def test_a_file_that_changed_since_it_was_listed_is_what_its_link_says(machine: Machine) -> None:
    machine.has({"a.png": b"old"})
    chosen = machine.listing()
    machine.has({"a.png": b"newer"})

    def links(names: Sequence[str]) -> dict[str, Link]:
        now = {one.name: one for one in machine.listing()}
        return {name: Link(url, now[name]) for name, url in machine.urls(names).items()}

    assert outcomes(machine.get(chosen=chosen)) == [FAILED]
    (result,) = machine.get(chosen=chosen, urls=links)
    assert result.outcome == DOWNLOADED and result.file.md5 == md5(b"newer")
    assert outcomes(machine.get()) == [UNCHANGED]


def test_files_the_server_has_no_more(machine: Machine) -> None:
    machine.has({"a.png": b"A", "b.png": b"B"})
    chosen = machine.listing()
    del machine.server.run("me", "demo", "abc123").files["a.png"]
    a, b = machine.get(chosen=chosen)
    assert (a.outcome, b.outcome) == (FAILED, DOWNLOADED)
    assert a.error and "not on the server any more" in a.error.line()


@pytest.mark.parametrize(("error", "asked"), [(NotSignedIn, 1), (Unreachable, 1), (ServerError, 3)])
def test_no_addresses(machine: Machine, error: type[WandbsyncError], asked: int) -> None:
    """Without a key or a network asking again is of no use; otherwise the next hundred may be luckier."""
    machine.has({f"{i}.png": b"x" for i in range(250)})
    (machine.out / "mine").mkdir(parents=True)
    calls = 0

    def urls(names: Sequence[str]) -> dict[str, str]:
        nonlocal calls
        calls += 1
        raise error("no")

    results = machine.get(urls=urls)
    assert outcomes(results) == [FAILED] * 250 and calls == asked
    assert all(type(result.error) is error for result in results)
    assert [path.name for path in machine.out.iterdir()] == ["mine"]  # nothing of ours, and the folder was there before


def test_a_store_that_nobody_reaches_is_given_up(machine: Machine) -> None:
    machine.has({f"{i:02}.png": b"x" for i in range(50)})
    calls = 0

    def nobody(url: str, path: Path) -> int:
        nonlocal calls
        calls += 1
        raise Unreachable("nobody there")

    results = machine.get(fetch=nobody, workers=2)
    assert outcomes(results) == [FAILED] * 50 and calls <= 4
    assert all(isinstance(result.error, Unreachable) for result in results)
    assert not machine.out.exists()


def test_addresses_are_asked_for_as_they_are_needed(machine: Machine) -> None:
    machine.has({f"{i:03}.png": str(i).encode() for i in range(250)})
    assert outcomes(machine.get()) == [DOWNLOADED] * 250
    assert [len(names) for names in machine.asked] == [100, 100, 50]
    assert len(machine.shown) == 250


@pytest.mark.parametrize("how", [KeyboardInterrupt, Stopped])
def test_an_interrupted_download_notes_what_is_done(machine: Machine, how: type[BaseException]) -> None:
    machine.has({f"{i:02}.png": bytes([i]) for i in range(20)})
    calls = 0

    def interrupted(url: str, path: Path) -> int:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise how("stop")
        return fetch(url, path)

    with pytest.raises(how):
        machine.get(fetch=interrupted, workers=1)
    assert 7 <= len(machine.shown) < 20 and not list(machine.out.glob(".*"))
    assert all(len(data) == 1 for data in machine.shown.values())
    assert 7 <= machine.metadata["file_count"] <= len(machine.shown)
    done = len(machine.shown)
    assert sorted(outcomes(machine.get())) == [DOWNLOADED] * (20 - done) + [UNCHANGED] * done
    assert outcomes(machine.get()) == [UNCHANGED] * 20 and machine.metadata["file_count"] == 20


def test_a_caller_that_fails_leaves_no_thread_at_work(machine: Machine) -> None:
    machine.has({f"{i:02}.png": bytes([i]) for i in range(20)})

    def tell(result: FileResult) -> None:
        raise ValueError("the caller's own")

    with pytest.raises(ValueError, match="own"):
        machine.get(tell=tell)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("download")]
    assert not list(machine.out.glob(".*"))
    assert outcomes(machine.get()).count(FAILED) == 0 and len(machine.shown) == 20


SCRIPT = """
import json, os, resource, signal, sys
from datetime import datetime
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
from test_media import fetch
from wandbsync.folder.names import NamedRun
from wandbsync.media import download
from wandbsync.model import FileRecord
told = json.loads(sys.argv[2])
run = NamedRun("me", "demo", "abc123", "brave-sun-7")
files = [FileRecord(**one) for one in told["files"]]
def go(**more):
    how = dict(urls=lambda names: told["urls"], fetch=fetch, media=Path(told["media"]), now=datetime.now())
    return download(run, files, Path(told["out"]), **(how | more))
"""


def process(machine: Machine, script: str, files: Sequence[FileRecord], **more: Any) -> subprocess.Popen[str]:
    """A process of its own that runs some lines with `go`, which downloads the files."""
    told = {
        "files": [{name: getattr(one, name) for name in ("name", "size", "updated_at", "md5")} for one in files],
        "urls": machine.urls([one.name for one in files]),
        "out": str(machine.out),
        "media": str(machine.media),
        **more,
    }
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    command = [sys.executable, "-c", SCRIPT + textwrap.dedent(script), json.dumps(paths), json.dumps(told)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_kill_9_in_the_middle(machine: Machine) -> None:
    data = os.urandom(300_000)
    machine.has({"a.png": b"A", "b.png": data})
    script = """
    def half(url, path):
        if "b.png" not in url:
            return fetch(url, path)
        path.write_bytes(b"half of it")
        print("half", flush=True)
        signal.pause()
    go(fetch=half)
    """
    with process(machine, script, machine.listing()) as child:
        assert child.stdout and child.stdout.readline() == "half\n"
        wait_for((machine.out / "a.png").exists)
        # Somebody else comes by meanwhile and leaves alone what is at work.
        assert outcomes(machine.get(["a.png"])) == [UNCHANGED]
        assert len(list(machine.out.glob(".wandbsync-*/*.part"))) == 1
        child.send_signal(signal.SIGKILL)
    assert sorted(path.name for path in machine.out.glob("[!.]*")) == ["a.png", "metadata.json"]
    assert len(list(machine.out.glob(".*"))) == 1
    (machine.out / "b.png").unlink(missing_ok=True)
    machine.get(["a.png"])
    assert not list(machine.out.glob(".*"))  # swept, also by one that wants another file
    assert outcomes(machine.get()) == [UNCHANGED, DOWNLOADED]
    assert machine.shown == {"a.png": b"A", "b.png": data}
    assert not list(machine.media.glob(".*"))


def test_killed_at_any_moment(machine: Machine) -> None:
    """Before any call to the disk: what shows is whole, and the next one completes it."""
    machine.has({f"{i}.png": os.urandom(1000) for i in range(3)})
    script = """
    import shutil, warnings
    from wandbsync.media.content import of_file
    warnings.simplefilter("ignore")  # forking is safe here: the threads are gone by then
    out, media = Path(told["out"]), Path(told["media"])
    calls, dies_at = 0, 0
    def counted(plain):
        def call(*args, **more):
            global calls
            calls += 1
            if calls == dies_at:
                os.kill(os.getpid(), 9)
            return plain(*args, **more)
        return call
    os.fsync = counted(os.fsync)
    for name in ("replace", "rename", "unlink", "mkdir", "rmdir", "write_bytes"):
        setattr(Path, name, counted(getattr(Path, name)))
    bytes_of = {}
    def remember(url, path):
        if url not in bytes_of:
            fetch(url, path)
            bytes_of[url] = path.read_bytes()
        return path.write_bytes(bytes_of[url])
    def right(path):
        return of_file(path).md5_text in {one.md5 for one in files}
    go(fetch=remember)
    for dies_at in range(1, 1000):
        shutil.rmtree(out), shutil.rmtree(media)
        child = os.fork()
        if not child:
            calls = 0
            go(fetch=remember, workers=1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for path in out.glob("[!.]*"):
            assert right(path) or json.loads(path.read_text()), (dies_at, path)
        for path in media.glob("[!.]*/*"):
            assert right(path), (dies_at, path)
        calls = dies_at
        assert {result.outcome for result in go(fetch=remember)} <= {"downloaded", "copied", "unchanged"}, dies_at
        assert sorted(path.name for path in out.glob("[!.]*")) == ["0.png", "1.png", "2.png", "metadata.json"], dies_at
        assert all(right(path) for path in out.glob("*.png"))
        assert json.loads((out / "metadata.json").read_text())["file_count"] == 3
        assert not list(out.glob(".wandbsync-*")), dies_at
        if code == 0:
            print(dies_at)
            break
        assert code == -9
    """
    with process(machine, script, machine.listing()) as child:
        said = child.stdout.read() if child.stdout else ""
    assert child.returncode == 0 and int(said) > 20


def test_what_is_left_of_others_goes_when_it_is_old(tmp_path: Path) -> None:
    left, young = tmp_path / f".{'0' * 32}.tmp", tmp_path / f".{'1' * 32}.tmp"
    mine = tmp_path / ".mine.tmp"
    for path in (left, young, mine):
        path.write_text("")
    os.utime(left, (0, time.time() - 3600))
    with locked(tmp_path), scratch(tmp_path):
        assert not left.exists() and young.exists() and mine.exists()


def test_two_at_once_give_each_file_a_name_of_its_own(machine: Machine) -> None:
    machine.has({f"{split}/{i}.png": f"{split}{i}".encode() for split in ("train", "val") for i in range(10)})
    machine.server.latency = 0.02
    with (
        process(machine, "go()", choose(machine.listing(), ["train/*"])) as one,
        process(machine, "go()", choose(machine.listing(), ["val/*"])) as two,
        process(machine, "go()", machine.listing()) as three,
    ):
        pass
    assert (one.returncode, two.returncode, three.returncode) == (0, 0, 0)
    assert len(machine.shown) == 20 and not list(machine.out.glob(".*"))
    files = machine.metadata["files"]
    assert {name: entry["name"] for name, entry in files.items()}.keys() == machine.shown.keys()
    for name, entry in files.items():
        assert machine.shown[name] == entry["name"].removesuffix(".png").replace("/", "").encode()
    assert machine.metadata["file_count"] == 20
    assert outcomes(machine.get()) == [UNCHANGED] * 20


def test_names_are_claimed_before_the_first_byte(machine: Machine) -> None:
    machine.has({"a.png": b"A"})
    seen: list[Any] = []

    def looking(url: str, path: Path) -> int:
        seen.append(machine.metadata)
        return fetch(url, path)

    machine.get(fetch=looking)
    assert seen == [{"files": {"a.png": {"run": "me/demo/abc123", "name": "a.png"}}}]


@pytest.mark.parametrize("when", ["claiming", "noting"])
def test_metadata_is_changed_by_one_at_a_time(machine: Machine, when: str) -> None:
    """Somebody reads it, thinks for a while and writes it back: both are in it."""
    machine.has({"a.png": b"A"})
    machine.out.mkdir()
    reading = threading.Event()

    def somebody() -> None:
        with locked(machine.out):

            def think(before: dict[str, Any]) -> dict[str, Any]:
                reading.set()
                time.sleep(0.5)
                return before | {"somebody": 1}

            change(machine.out, think)

    thread = threading.Thread(target=somebody)

    def start() -> None:
        thread.start()
        assert reading.wait(10)

    def fetch_later(url: str, path: Path) -> int:
        thread.join()
        assert machine.metadata.keys() == {"somebody", "files"}
        return fetch(url, path)

    if when == "claiming":
        start()
        machine.get(fetch=fetch_later)
    else:
        machine.get(tell=lambda result: start())
    thread.join()
    assert machine.metadata["somebody"] == 1 and machine.metadata["files"]["a.png"]["size"] == 1


def test_threads_of_one_process_share_a_folder_too(machine: Machine) -> None:
    machine.has({f"{i}.png": str(i).encode() for i in range(20)})
    results: list[list[FileResult]] = []
    threads = [threading.Thread(target=lambda: results.append(machine.get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3 and all(result.outcome != FAILED for found in results for result in found)
    assert len(machine.shown) == 20 and machine.metadata["file_count"] == 20


@pytest.mark.parametrize("transport", [False, True])
def test_a_full_disk(machine: Machine, transport: bool) -> None:
    small, big = b"A", os.urandom(200_000)
    machine.has({"a.png": small, "b.png": big, "c.png": small + small})
    script = """
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    if told["transport"]:
        from wandbsync.sources.api.budget import Budget
        from wandbsync.sources.api.credentials import Login
        from wandbsync.sources.api.transport import Transport
        fetch = Transport(Login("http://127.0.0.1", "0" * 40), Budget()).download
    for result in go(workers=1, fetch=fetch):
        print(result.outcome, result.error and str(result.error))
    """
    with process(machine, script, machine.listing(), transport=transport) as child:
        said = child.stdout.read().splitlines() if child.stdout else []
    assert said == ["downloaded None", "failed cannot get b.png: File too large", "downloaded None"]
    assert machine.shown == {"a.png": small, "c.png": small + small} and not list(machine.out.glob(".*"))
    assert machine.metadata["files_downloaded"] == ["a.png", "c.png"] and "b.png" not in machine.metadata["files"]
    assert outcomes(machine.get()) == [UNCHANGED, DOWNLOADED, UNCHANGED]


def test_a_disk_that_is_full_for_metadata_too(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has({"a.png": b"A"})
    calls, fsync = 0, os.fsync

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= when:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    for when in range(1, 8):
        calls = 0
        try:
            results = machine.get()
        except WandbsyncError as error:
            assert "No space left on device" in error.line()
        else:
            assert all(result.outcome != FAILED or "No space" in str(result.error) for result in results)
        shown = machine.shown if machine.out.exists() else {}
        assert shown in ({}, {"a.png": b"A"}), when
        assert not machine.out.exists() or not list(machine.out.glob(".*"))
    monkeypatch.undo()
    assert machine.get()[0].outcome != FAILED and machine.shown == {"a.png": b"A"}
