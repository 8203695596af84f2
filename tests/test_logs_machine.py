"""Several logs of one run: wherever a sync finds them, its rows are where a plain reading of the logs puts them."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import logwriter as lw
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from local_runs import header, ref
from wandb.proto import wandb_internal_pb2 as pb

from wandbsync import query
from wandbsync.cache import Cache
from wandbsync.cache.verify import verify
from wandbsync.sync import sync_local
from wandbsync.sync.local import follow

BEGUN = 1_700_000_000


@dataclass
class Writer:
    """A process that writes a log; what it logs is known, and how much of the log has arrived."""

    number: int
    kind: str  # resumed, anew (offline), online, shared
    begun: int
    records: list[bytes]
    rows: list[tuple[int, int | None, float, int]] = field(default_factory=list)  # record, step, time, value
    printed: list[tuple[int, float, str]] = field(default_factory=list)  # record, time, line
    arrived: int = 0  # bytes

    @property
    def ends(self) -> list[int]:
        """The length of the log after each record."""
        return [len(lw.log(self.records[: n + 1])) for n in range(len(self.records))]


def plain(writers: list[Writer]) -> tuple[Counter[tuple[int, int]], list[str]]:
    """(step, value) of all rows that have arrived, and the lines in order: the rules, as simply as they can be said."""
    rows: list[tuple[int, int]] = []
    stepless: list[tuple[float, int]] = []
    lines: list[tuple[float, str]] = []
    for writer in sorted(writers, key=lambda one: one.begun):
        here = sum(end <= writer.arrived for end in writer.ends)
        mine = [row for row in writer.rows if row[0] < here]
        after = max((step for step, _ in rows), default=-1) + 1
        shift = max(0, after - (mine[0][1] or 0)) if writer.kind == "resumed" and mine else 0
        rows += [(step + shift, value) for _, step, _, value in mine if step is not None]
        stepless += [(time, value) for _, step, time, value in mine if step is None]
        lines += [(time, text) for record, time, text in writer.printed if record < here]
    rows += [(step, value) for step, (_, value) in enumerate(sorted(stepless))]
    return Counter(rows), [text for _, text in sorted(lines)]


class Logs(RuleBasedStateMachine):
    """Writers begin and log; pieces of their logs arrive in any order; now and then there is a sync."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.top = Path(self.folder.name) / "runs"
        self.top.mkdir()
        self.cache = Cache(Path(self.folder.name) / "cache")
        self.clock = BEGUN
        self.count = 0
        self.writers: list[Writer] = []
        self.synced = False
        self.shared = False

    @rule(kind=st.sampled_from(["resumed", "anew", "online", "shared"]))
    @precondition(lambda self: len(self.writers) < 4)
    def begin(self, kind: str) -> None:
        if not self.writers:
            self.shared = kind == "shared"
        kind = "shared" if self.shared else "online" if kind == "shared" else kind
        self.clock += 10
        offline = kind in ("resumed", "anew")
        records = header("r", at=self.clock, offline=offline, resume=kind == "resumed")
        self.writers.append(Writer(len(self.writers), kind, self.clock, records))
        self.write(len(self.writers) - 1, 2, 0, True)

    @rule(which=st.integers(0, 3), count=st.integers(1, 4), first=st.integers(0, 6), arrives=st.booleans())
    @precondition(lambda self: self.writers)
    def write(self, which: int, count: int, first: int, arrives: bool) -> None:
        writer = self.writers[which % len(self.writers)]
        step = first if not writer.rows else (writer.rows[-1][1] or 0) + 1
        for n in range(count):
            self.clock += 1
            self.count += 1
            own = None if self.shared else step + n
            cells = [(("x",), str(self.count)), (("_timestamp",), json.dumps(float(self.clock)))]
            cells += [] if own is None else [(("_step",), str(own))]
            writer.rows.append((len(writer.records), own, self.clock, self.count))
            writer.records.append(lw.record("core", self.count, history=lw.history("core", cells, own)))
        line = pb.OutputRawRecord(output_type=pb.OutputRawRecord.STDOUT, line=f"line {self.count}\n")
        line.timestamp.seconds = self.clock
        writer.printed.append((len(writer.records), self.clock, f"line {self.count}"))
        writer.records.append(lw.record("core", self.count, output_raw=line))
        if arrives:
            self.arrive(which, 1)

    @rule(which=st.integers(0, 3), part=st.sampled_from([0.3, 0.6, 0.9, 1, 1]))
    @precondition(lambda self: self.writers)
    def arrive(self, which: int, part: float) -> None:
        writer = self.writers[which % len(self.writers)]
        data = lw.log(writer.records)
        size = max(writer.arrived, int(len(data) * part))
        if size > writer.arrived:
            with self.path(writer).open("ab") as file:
                file.write(data[writer.arrived : size])
            writer.arrived, self.synced = size, False

    def path(self, writer: Writer) -> Path:
        name = f"{'offline-run' if writer.kind in ('resumed', 'anew') else 'run'}-{9 - writer.number}-r"
        folder = self.top / "wandb" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / "run-r.wandb"

    @rule()
    def sync(self) -> None:
        sync_local(self.cache, [self.top])
        self.synced = True

    @rule()
    def follow(self) -> None:
        there = [str(self.path(writer)) for writer in self.writers if writer.arrived]
        if there:
            follow(self.cache, there)
            self.synced = True

    @invariant()
    def rows_are_where_a_plain_reading_puts_them(self) -> None:
        if self.synced:
            rows, lines = plain(self.writers)
            if self.cache.revision(ref("r")) is None:
                assert not rows and not lines
                return
            found = query.history(self.cache, ref("r"), ["x"]).to_pylist()
            assert Counter((row["step"], int(row["value"])) for row in found) == rows
            said = query.history(self.cache, ref("r"), stream="console").to_pylist()
            assert [row["value_json"] for row in sorted(said, key=lambda row: row["step"])] == lines
            assert [one for one in verify(self.cache) if not one.harmless] == []

    def teardown(self) -> None:
        for writer in self.writers:
            self.arrive(writer.number, 1)
        self.sync()
        self.rows_are_where_a_plain_reading_puts_them()
        assert sync_local(self.cache, [self.top]).bytes_read == 0
        self.cache.close()
        self.folder.cleanup()


TestLogs = Logs.TestCase
TestLogs.settings = settings(
    max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
