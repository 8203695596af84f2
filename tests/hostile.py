"""Strangers, for `make chaos`: servers that drip, swell, lie, shrink and grow; logs that nobody wrote."""

from __future__ import annotations

import functools
import gzip
import io
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import local_runs
import logwriter
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from stage import Row, Stage, sane
from wandb.proto import wandb_internal_pb2 as pb
from wandb_server import HTML, Run, Server
from wandb_server.store import Export

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.errors import WandbsyncError

LINES, EXPORTED = 400, 300
FAULTS: list[dict[str, Any]] = [
    *({"status": 200, "body": body} for body in (HTML, b"[]", b'{"data": null}', b"{" * 5000, b"[" * 100_000)),
    {"status": 500},
    {"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}},
    {"reset": "before"},
    {"reset": "after"},
    {"truncate": 100},
    {"latency": 0.5},
    {"drip": 0.0005},
]
OPERATIONS = ("*", "Runs", "Run", "HistoryPage", "RunParquetHistory", "export")


# -- servers


def server(stage: Stage, row: Row) -> None:
    """A server that answers pages, halves, nothing, late or something else; then it is good again."""
    fault, operation = stage.rng.choice(FAULTS), stage.rng.choice(OPERATIONS)
    times, skip = stage.rng.choice([1, 3, 8]), stage.rng.randrange(3)
    _asked(
        stage,
        row,
        f"{operation} {fault}"[:120],
        lambda there, _: there.fail(operation, times=times, skip=skip, **fault),
    )


def bomb(stage: Stage, row: Row) -> None:
    """Little that becomes much: compressed answers, and an export with a hundred million rows."""

    def swell(there: Server, run: Run) -> None:
        if kind == "rows":
            run.exports = [Export("bad.parquet", _many_rows())]
        else:
            zipped = {"Content-Encoding": "gzip", "Content-Type": "x/y"}
            there.fail(kind, times=None, status=200, body=_zeros(), headers=zipped)

    kind = stage.rng.choice(["rows", *OPERATIONS])
    _asked(stage, row, f"bomb {kind}", swell)


def liar(stage: Stage, row: Row) -> None:
    """A server whose counts are not true."""

    def lie(there: Server, run: Run) -> None:
        def twist(payload: Any, status: int, body: Any) -> tuple[int, Any]:
            return status, _with_numbers(body, name, value)

        there.twist = twist

    name = stage.rng.choice(["historyLineCount", "eventsLineCount", "logLineCount", "lastStep", "runCount", "total"])
    # No rows at all, as long as it says so, is its word: nobody asks for what was never logged.
    value = stage.rng.choice([1, LINES - 1, LINES + 1, 10**12, -1, None])
    _asked(stage, row, f"{name} is {value}", lie)


def changing(stage: Stage, row: Row) -> None:
    """A run that shrinks, grows or begins anew on its server while it is mirrored."""

    def change(there: Server, run: Run) -> None:
        seen = 0

        def twist(payload: Any, status: int, body: Any) -> tuple[int, Any]:
            nonlocal seen
            seen += 1
            if seen == at:
                if kind == "grow":
                    there.grow(run, [{"_step": LINES + i, "x": float(LINES + i)} for i in range(50)])
                elif kind == "shrink":
                    there.rewind(run, LINES // 2)
                else:
                    there.recreate(run, [{"x": float(i)} for i in range(7)])
            return status, body

        there.twist = twist

    at, kind = stage.rng.randrange(1, 8), stage.rng.choice(["grow", "shrink", "begin anew"])
    _asked(stage, row, f"{kind} at answer {at}", change, moves=True)


def _asked(stage: Stage, row: Row, what: str, harm: Callable[[Server, Run], object], *, moves: bool = False) -> None:
    """A sync from a server that does harm, and two when it is good again. `moves`: what it has changes, in truth."""
    before = stage.shell.env.copy()
    with Server() as there:
        there.history_serves_exported = stage.rng.random() < 0.5
        exported = stage.rng.choice([0, EXPORTED])
        there.add_run("me", "demo", "s", [{"x": float(i)} for i in range(LINES)], exported=exported)
        there.add_run("me", "demo", "other", [{"x": float(i)} for i in range(7)])
        stage.shell.env |= there.env
        shutil.rmtree(stage.shell.cache, ignore_errors=True)
        harm(there, there.run("me", "demo", "s"))
        done = stage.run("sync", "me/demo")
        row.tried += 1
        sane(row, what, done)
        told = done.told
        try:
            with Cache(stage.shell.cache) as cache:
                bad = query.sql(cache, "SELECT count(*) FROM history WHERE key = 'x' AND value <> step").fetchall()
                there_is = query.sql(cache, "SELECT run_id, rows, incomplete FROM runs").fetchall()
            if bad != [(0,)]:
                row.wrong.append(f"{what}: {bad[0][0]} values that nobody logged")
            elif not (told or moves or any(line[2] for line in there_is)) and stage.ask() != _right(there):
                row.wrong.append(f"{what}: another answer, exit 0")
        except WandbsyncError:
            told = True
        row.told += told
        there.calm()
        there.twist = lambda payload, status, body: (status, body)
        run = there.run("me", "demo", "s")
        run.exports = [one for one in run.exports if one.name != "bad.parquet"]
        run.exported_lines *= bool(run.exports)
        row.ill += 1
        for words in (("sync", "me/demo"), ("sync", "me/demo/s", "me/demo/other", "--full")):
            stage.run(*words)
            if stage.ask() == _right(there):
                row.healed += 1
                break
        else:
            row.wrong.append(f"{what}: not healed")
    stage.shell.env = before


def _right(there: Server) -> list[tuple[object, ...]]:
    """What a whole mirror says of the server's runs."""
    found: list[tuple[object, ...]] = []
    for name, run in sorted(there.store.projects["me", "demo"].runs.items()):
        lines = [line for line in run.history.lines(np.arange(len(run.history))) if "x" in line]
        found.append((name, len(lines), float(sum(line["x"] for line in lines)), int(lines[-1]["_step"])))
    return found


def _with_numbers(body: Any, name: str, value: Any) -> Any:
    """A JSON value with another value wherever this name stands."""
    if isinstance(body, dict):
        return {key: value if key == name else _with_numbers(one, name, value) for key, one in body.items()}
    return [_with_numbers(one, name, value) for one in body] if isinstance(body, list) else body


@functools.cache
def _zeros() -> bytes:
    """Two megabytes that are two gigabytes."""
    return gzip.compress(bytes(10 << 20)) * 200


@functools.cache
def _many_rows() -> bytes:
    buffer, piece = io.BytesIO(), pa.table({"_step": np.zeros(10_000_000), "x": np.zeros(10_000_000)})
    with pq.ParquetWriter(buffer, piece.schema) as writer:
        for _ in range(10):
            writer.write_table(piece)
    return buffer.getvalue()


# -- logs


def broken_log(stage: Stage, row: Row) -> None:
    """A log with bytes changed, cut or doubled: what is read of it was logged, and the others are whole."""
    rng = stage.rng
    path = rng.choice(sorted(stage.runs.rglob("*.wandb")))
    whole = path.read_bytes()
    at = rng.randrange(len(whole))
    kinds = [whole[:at], whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :], whole[:at] + whole[at // 2 :]]
    path.write_bytes(rng.choice(kinds))
    _read(stage, row, f"{path.name} from {at} on", path.stem.removeprefix("run-"))
    path.write_bytes(whole)
    stage.heal(row, "broken log")


def strange_log(stage: Stage, row: Row) -> None:
    """A log that no SDK wrote, beside the others."""
    kind = stage.rng.choice(sorted(STRANGE))
    folder = stage.runs / "wandb" / "run-20240101_000000-evil"
    folder.mkdir()
    STRANGE[kind](folder / "run-evil.wandb", stage.rng)
    _read(stage, row, kind, "evil")
    shutil.rmtree(folder)
    shutil.rmtree(stage.shell.cache)
    stage.heal(row, kind)


def _read(stage: Stage, row: Row, what: str, bad: str) -> None:
    """A first sync with a log that is bad."""
    shutil.rmtree(stage.shell.cache)
    done = stage.run("sync")
    row.tried += 1
    if not sane(row, what, done):
        return
    row.told += done.told or bool(done.stderr)
    found = {line[0]: line for line in stage.ask()}
    row.wrong += [
        f"{what}: {line[0]} differs" for line in stage.numbers if line[0] != bad and found.get(line[0]) != line
    ]
    if bad != "evil":
        wrong = f"(key = 'x' AND value <> step) OR (key = 'loss' AND value <> {int(bad[1:]) / 8!r})"
        with Cache(stage.shell.cache) as cache:
            counted = query.sql(cache, f"SELECT count(*) FROM history WHERE run_id = '{bad}' AND ({wrong})").fetchall()
        if counted != [(0,)]:
            row.wrong.append(f"{what}: {counted[0][0]} values that nobody logged")


def _logged(*cells: tuple[str, str]) -> list[bytes]:
    rows = [((key,), text) for key, text in cells]
    record = logwriter.record("core", 3, history=logwriter.history("core", rows, 0))
    return [*local_runs.header("evil"), record, local_runs.end()]


def _written(path: Path, *cells: tuple[str, str]) -> None:
    path.write_bytes(logwriter.log(_logged(*cells)))


def _sparse(path: Path, _: random.Random) -> None:
    path.write_bytes(logwriter.log(_logged(("x", "0"))))
    os.truncate(path, 4 << 30)


def _listening(path: Path, _: random.Random) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.open(path.parent, os.O_RDONLY)
        one.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def _summary(path: Path, _: random.Random) -> None:
    much = pb.SummaryRecord(update=[pb.SummaryItem(nested_key=["s"] * 3000, value_json="[" * 3000 + "]" * 3000)])
    record = logwriter.record("core", 3, summary=much)
    path.write_bytes(logwriter.log([*local_runs.header("evil"), record, local_runs.end()]))


STRANGE: dict[str, Callable[[Path, random.Random], object]] = {
    "deep list": lambda path, _: _written(path, ("x", "[" * 100_000 + "]" * 100_000)),
    "deep object": lambda path, _: _written(path, ("x", '{"a":' * 2000 + "1" + "}" * 2000)),
    "long integer": lambda path, _: _written(path, ("x", "9" * 1_000_000)),
    "20,000 keys": lambda path, _: _written(path, *((f"k{i}", "1") for i in range(20_000))),
    "odd names": lambda path, _: _written(path, *((name, "1") for name in ("", "\0", "../..", "\x1b[2J", "'; DROP"))),
    "a megabyte of name": lambda path, _: _written(path, ("k" * (1 << 20), "1")),
    "not JSON": lambda path, _: _written(path, ("x", "{"), ("y", "nan")),
    "summary": _summary,
    "absurd times": lambda path, _: _written(path, ("_timestamp", "1e300"), ("_runtime", "-1e308"), ("x", "1")),
    "absurd steps": lambda path, _: _written(path, ("_step", str(2**70)), ("x", "1")),
    "random bytes": lambda path, rng: path.write_bytes(logwriter.MAGIC + rng.randbytes(200_000)),
    "no bytes": lambda path, _: path.touch(),
    "zeros": lambda path, _: path.write_bytes(logwriter.MAGIC + bytes(1 << 20)),
    "a claimed length": lambda path, _: path.write_bytes(
        logwriter.log([*local_runs.header("evil"), b"\x12" + logwriter.varint(2**31 - 1) + b"x" * 100])
    ),
    "sparse 4 GB": _sparse,
    "a folder": lambda path, _: path.mkdir(),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a socket": _listening,
    "a link to itself": lambda path, _: path.symlink_to(path),
    "a link to a device": lambda path, _: path.symlink_to("/dev/zero"),
}
