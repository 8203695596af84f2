"""Small files are mirrored with their runs: by name and size, last of all, and never in the way of rows."""

from __future__ import annotations

import json
from pathlib import Path

from mirror import DEMO, Mirror
from wandb_server import Run, Server

from wandbsync import query
from wandbsync.model import RunRef
from wandbsync.sync.files import MirroredFiles

TOLD = {"program": "train.py", "codePath": "src/train.py", "host": "node7", "startedAt": "2024-01-01T00:00:00Z"}
FILES = {
    "wandb-metadata.json": json.dumps(TOLD).encode(),
    "requirements.txt": b"numpy==2\n",
    "media/table/t_0_ab.table.json": b"{}",
    "media/table/big.table.json": b"x" * 2000,
    "other.txt": b"not asked for",
}


def add(server: Server, name: str = "r") -> Run:
    return server.add_run(*DEMO, name, {"loss": [1.0, 0.5]}, files=FILES)


def kept(mirror: Mirror) -> set[bytes]:
    return {path.read_bytes() for path in (mirror.cache.folder / "media").glob("??/*")}


WANTED = MirroredFiles(("requirements.txt", "media/table/**"), 1000)


def test_metadata_always_and_what_the_patterns_choose(server: Server, mirror: Mirror) -> None:
    for name in "abc":
        add(server, name)
    mirror.quietly(mirrored=MirroredFiles())
    assert kept(mirror) == {FILES["wandb-metadata.json"]}
    assert query.get_run(mirror.cache, RunRef(*DEMO, "b"))["metadata"] == {
        "program": "train.py", "code_path": "src/train.py", "host": "node7",
    }  # fmt: skip
    mirror.quietly("a", mirrored=WANTED, full=True)
    chosen = ["wandb-metadata.json", "requirements.txt", "media/table/t_0_ab.table.json"]
    assert kept(mirror) == {FILES[name] for name in chosen}
    mirror.quietly(mirrored=WANTED)
    assert mirror.asked == {"Runs": 1}
    found = query.sql(mirror.cache, "SELECT name, local_path FROM files WHERE run_id = 'a' AND local_path IS NOT NULL")
    assert {name: Path(path).read_bytes() for name, path in found.fetchall()} == {name: FILES[name] for name in chosen}


def test_one_question_for_many_runs(server: Server, mirror: Mirror) -> None:
    for i in range(30):
        server.add_run(
            *DEMO, f"r{i}", {"loss": [1.0]}, files={"wandb-metadata.json": json.dumps({"host": f"h{i}"}).encode()}
        )
    mirror.quietly(mirrored=MirroredFiles())
    assert mirror.asked["RunFileUrls"] == 1 and len(kept(mirror)) == 30
    assert [query.get_run(mirror.cache, RunRef(*DEMO, f"r{i}"))["metadata"]["host"] for i in (0, 29)] == ["h0", "h29"]


def test_what_does_not_come_costs_nothing_and_comes_later(server: Server, mirror: Mirror) -> None:
    add(server)
    server.fail("download", status=403, times=50)
    server.fail("RunFile*", status=500, times=50)
    mirror.quietly(mirrored=MirroredFiles())
    assert mirror.run("r")["complete"] and not kept(mirror)
    server.calm()
    mirror.quietly(mirrored=MirroredFiles())
    assert not kept(mirror)  # too soon
    mirror.now += 3600
    mirror.quietly(mirrored=MirroredFiles())
    assert kept(mirror) == {FILES["wandb-metadata.json"]}
    mirror.quietly(mirrored=MirroredFiles())
    assert mirror.asked == {"Runs": 1}


def test_bytes_that_are_not_the_files_are_not_kept(server: Server, mirror: Mirror) -> None:
    run = add(server)
    mirror.quietly()
    run.files["wandb-metadata.json"].data = b"?" * len(FILES["wandb-metadata.json"])  # changed since it was listed
    mirror.quietly("r", mirrored=MirroredFiles(), files=False)
    assert not kept(mirror)


def test_what_the_metadata_file_says_outlasts_the_next_description(server: Server, mirror: Mirror) -> None:
    run = add(server)
    mirror.quietly(mirrored=MirroredFiles())
    server.edit(run, notes="edited")
    mirror.quietly(mirrored=MirroredFiles())
    found = query.get_run(mirror.cache, RunRef(*DEMO, "r"))
    assert (found["notes"], found["metadata"]["program"]) == ("edited", "train.py")
