"""`make fuzz`: everything that reads strangers' bytes is fed with broken ones; only our own errors may come of it.

    python tests/fuzz.py [TARGET ...] [--seconds 60] [--seed N]

A target takes bytes (or a server's answers), breaks them somewhere, and reads them: a `.wandb` log, its records with
their checksums put right, an export, a server's JSON, the config, names of files. What it must not do: raise anything
but a WandbsyncError, run for ever, write outside its folder, or leave a cache that is not sound. What broke it is
written to tests/seeds/, to be committed with the fix; tests/test_fuzz.py reads all seeds again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import logwriter
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mirror import Mirror, connected, rows
from wandb_server import Server

from wandbsync import config, targets
from wandbsync.cache import Cache
from wandbsync.cache.verify import verify
from wandbsync.errors import WandbsyncError
from wandbsync.folder.names import safe_part
from wandbsync.media.names import NamedRun, flat_names
from wandbsync.model import FileRecord
from wandbsync.plot.names import plot_files
from wandbsync.sources.api.history import assemble
from wandbsync.sources.keys import Keys
from wandbsync.sync import sync_local

HERE = Path(__file__).parent
SEEDS = HERE / "seeds"
LONG = 20  # seconds that nothing here may take
SPICE = [
    b"\x00",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff" * 8,
    b"../",
    b"\r\n",
    b"\x1b[2J",
    b"NaN",
    b"1e999",
    b'"',
    b"{",
    b"[",
]


class Slow(BaseException):
    """It took too long: as bad as a crash."""


def broken(rng: random.Random, data: bytes) -> bytes:
    """The bytes with one to a few things done to them."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 12])):
        at = rng.randrange(len(out) + 1)
        how = rng.randrange(7)
        if how == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif how == 1 and at < len(out):
            out[at] = rng.randrange(256)
        elif how == 2:
            del out[at : at + rng.randrange(1, 64)]
        elif how == 3:
            out[at:at] = rng.choice(SPICE)
        elif how == 4:
            piece = out[at : at + rng.randrange(1, 200)]
            to = rng.randrange(len(out) + 1)
            out[to:to] = piece
        elif how == 5:
            del out[at:]
        else:
            spice = rng.choice(SPICE)
            out[at : at + len(spice)] = spice
    return bytes(out)


# -- logs


def logs() -> list[bytes]:
    return [path.read_bytes() for path in sorted((HERE / "logs").glob("*.wandb"))]


def records(data: bytes) -> Iterator[bytes]:
    """The records of a sound log."""
    at, parts = 7, []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


def read_log(data: bytes, folder: Path) -> None:
    """Sync a log, add to it, sync again; the cache must be sound."""
    place = folder / "wandb" / "offline-run-20240101_000000-fuzz"
    place.mkdir(parents=True)
    path = place / "run-fuzz.wandb"
    path.write_bytes(data[: len(data) // 2])
    with Cache(folder / "cache") as cache:
        for _ in range(2):
            with contextlib.suppress(WandbsyncError):
                sync_local(cache, [folder])
            path.write_bytes(data)
        wrong = [str(finding) for finding in verify(cache) if not finding.harmless] if cache.exists() else []
    assert not wrong, wrong


def fuzz_log(rng: random.Random, folder: Path) -> bytes:
    data = broken(rng, rng.choice(logs()))
    keep(folder, data)
    read_log(data, folder)
    return data


def fuzz_records(rng: random.Random, folder: Path) -> bytes:
    """Records that are broken inside, in a log whose checksums are right."""
    found = list(records(rng.choice(logs())))
    for _ in range(rng.choice([1, 3, 10])):
        at = rng.randrange(len(found))
        found[at] = broken(rng, found[at])
    data = logwriter.log(found)
    keep(folder, data)
    read_log(data, folder)
    return data


# -- what a server sends


def export() -> bytes:
    table = pa.table(
        {
            "_step": np.arange(60),
            "x": np.arange(60) / 7,
            "t": [f"text {i}" for i in range(60)],
            "h": [{"_type": "histogram", "bins": [1.5, 2.0], "values": [1]}] * 60,
            "n": [{"a": {"b": i}} for i in range(60)],
            "l": [[1.0, None, float("nan")]] * 60,
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=25)
    return bytes(sink.getvalue().to_pybytes())


def read_export(data: bytes, folder: Path) -> None:
    path = folder / "export.parquet"
    path.write_bytes(data)
    with contextlib.suppress(WandbsyncError):
        history = assemble([path], [], Keys(), count=None)
        for _ in history.batches():
            pass


def fuzz_export(rng: random.Random, folder: Path) -> bytes:
    data = broken(rng, export())
    keep(folder, data)
    read_export(data, folder)
    return data


VALUES: list[Any] = [
    None, True, False, 0, -1, 2**63, 1e308, float("nan"), "", "x", "NaN", "null", "2024-13-45T99:99:99", "../../x",
    "\ufffd", "é" * 300, [], {}, [None], {"edges": None}, {"_type": "image-file"}, "9" * 400, '{"a":', "[[[[[[",
]  # fmt: skip


def twisted(rng: random.Random, value: Any) -> Any:
    """A JSON value with one thing in it that is another."""
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        items = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        for key, inner in items:
            places.append((one, key))
            waiting.append(inner)
    if places:
        holder, key = rng.choice(places)
        how = rng.randrange(5)
        if how == 0 and isinstance(holder, dict):
            del holder[key]
        elif how == 1 and isinstance(holder, list):
            holder.append(holder[key])
        elif how == 2 and isinstance(holder[key], str):
            holder[key] = broken(rng, holder[key].encode("utf-8", "replace")).decode("utf-8", "replace")
        else:
            holder[key] = rng.choice(VALUES)
    return value


def fuzz_answers(rng: random.Random, folder: Path) -> bytes:
    """Sync from a server whose answers are twisted, then from one that has come to its senses: all must be there."""
    with Server() as server:
        run = server.add_run(
            "me", "demo", "r", rows(40), config={"lr": 0.1}, console=["a", "b"],
            events=[{"_timestamp": 1.7e9 + i, "system.cpu": i} for i in range(5)], files={"media/a.png": b"1"},
        )  # fmt: skip
        other = server.add_run("me", "demo", "s", rows(7), state="running")
        server.export(run, 25)
        mirror = Mirror(folder / "cache", server, connected(server))
        plain = mirror.api.transport.ask
        twists: list[str] = []

        def ask(operation: str, *args: Any, **more: Any) -> Any:
            data = plain(operation, *args, **more)
            if rng.random() < 0.4:
                before = json.dumps(data, sort_keys=True, default=str)
                data = twisted(rng, data)
                twists.append(f"{operation}: {before} -> {json.dumps(data, sort_keys=True, default=str)}")
            return data

        mirror.api.transport.ask = ask  # type: ignore[method-assign]
        for _ in range(2):
            keep(folder, "\n".join(twists).encode("utf-8", "replace"))
            mirror.now += 90_000
            with contextlib.suppress(WandbsyncError):
                mirror.sync()
        keep(folder, "\n".join(twists).encode("utf-8", "replace"))
        mirror.api.transport.ask = plain  # type: ignore[method-assign]
        mirror.now += 90_000
        mirror.sync(full=True)
        mirror.assert_same(run, other)
        mirror.assert_whole()
        mirror.close()
    return "\n".join(twists).encode("utf-8", "replace")


# -- what people write, and names


def read_config(data: bytes, folder: Path) -> None:
    path = folder / "wandbsync.toml"
    path.write_bytes(data)
    try:
        config.load(path, env={"HOME": str(folder)})
    except WandbsyncError as error:
        assert "\n" not in error.line()


def fuzz_config(rng: random.Random, folder: Path) -> bytes:
    text = config.example().encode().replace(b"\n# ", b"\n") if rng.random() < 0.5 else config.example().encode()
    data = broken(rng, text)
    keep(folder, data)
    read_config(data, folder)
    return data


def read_names(data: bytes, folder: Path) -> None:
    """Whatever something is called, its file is inside the folder, and no two are one."""
    names = [part for part in data.decode("utf-8", "surrogateescape").split("\n") if part]
    run = NamedRun("e", "p", "r", names[0] if names else "")
    flat = flat_names([FileRecord(name, 1) for name in names], run)
    files = [*map(str, flat.values()), *map(str, plot_files(names, group_by_prefix=True).values())]
    files += [safe_part(name) for name in names]
    for file in files:
        parts = PurePosixPath(file).parts
        assert parts and ".." not in parts and not file.startswith("/") and "\0" not in file, file
        assert all(len(part.encode("utf-8", "surrogateescape")) <= 255 for part in parts), file
    assert len(set(map(str.lower, map(str, flat.values())))) == len(flat)
    for name in names:
        with contextlib.suppress(WandbsyncError):
            targets.parse(name)


def fuzz_names(rng: random.Random, folder: Path) -> bytes:
    seed = (
        "media/images/a.png\nA.png\na.PNG\n../../etc/passwd\n/abs/olute\nlöss/träin\nCON\nx" + "y" * 300 + "\ne/p/r\n."
    )
    data = broken(rng, seed.encode())
    keep(folder, data)
    read_names(data, folder)
    return data


TARGETS: dict[str, Callable[[random.Random, Path], bytes]] = {
    "log": fuzz_log,
    "records": fuzz_records,
    "export": fuzz_export,
    "answers": fuzz_answers,
    "config": fuzz_config,
    "names": fuzz_names,
}
READERS: dict[str, Callable[[bytes, Path], None]] = {
    "log": read_log,
    "records": read_log,
    "export": read_export,
    "config": read_config,
    "names": read_names,
}


def keep(folder: Path, data: bytes) -> None:
    """Have what is about to be read at hand, should it break something."""
    (folder / "input").write_bytes(data)


def once(target: str, seed: int) -> str | None:
    """One case; what broke, if anything, its input kept among the seeds."""

    def too_long(*_: object) -> None:
        raise Slow

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as room:
        folder = Path(room)
        before = signal.signal(signal.SIGALRM, too_long)
        signal.alarm(LONG)
        try:
            TARGETS[target](random.Random(seed), folder)
        except (Exception, Slow):
            text = traceback.format_exc()
        else:
            return None
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        data = (folder / "input").read_bytes() if (folder / "input").exists() else b""
    SEEDS.mkdir(exist_ok=True)
    (SEEDS / f"{target}-{zlib.crc32(data):08x}").write_bytes(data)
    return f"{target}, seed {seed}: {text}"


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options.add_argument("--seconds", type=float, default=60.0, help="in all")
    options.add_argument("--seed", type=int, default=random.randrange(10**6))
    chosen = options.parse_args()
    names = chosen.targets or list(TARGETS)
    failures = 0
    for name in names:
        until, seed, count = time.monotonic() + chosen.seconds / len(names), chosen.seed, 0
        while time.monotonic() < until:
            wrong = once(name, seed)
            if wrong:
                failures += 1
                print(wrong, flush=True)
            seed, count = seed + 1, count + 1
        print(f"{name}: {count} cases from seed {chosen.seed}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
