"""The last line of a console is there before its newline, and becomes the line that it is completed to."""

from __future__ import annotations

from pathlib import Path

import logwriter as lw
from local_runs import end, header, put, ref, rows, said
from wandb.proto import wandb_internal_pb2 as pb

import wandbsync
from wandbsync import query
from wandbsync.cache import Cache, publish
from wandbsync.library.console import write_console
from wandbsync.sync import sync_local


def cried(text: str) -> bytes:
    return lw.record("core", 9, output_raw=pb.OutputRawRecord(output_type=pb.OutputRawRecord.STDERR, line=text))


def shown(cache: Cache, folder: Path) -> list[str]:
    """The lines of the run as every reader has them, which must agree."""
    console = query.history(cache, ref("bar"), stream="console").sort_by("step").to_pylist()
    assert [row["step"] for row in console] == list(range(len(console)))
    lines = [row["value_json"] for row in console]
    with publish.connect(cache) as con:
        found = con.execute("SELECT line, text, printed_to FROM console ORDER BY line").fetchall()
    assert found == [(row["step"], row["value_json"], row["key"]) for row in console]
    said = wandbsync.Api(cache_dir=cache.folder, offline=True).run("local/demo/bar").console_logs()
    assert [line.content for line in said] == lines
    write_console(cache, ref("bar"), folder)
    assert (folder / "output.log").read_text() == "".join(f"{line}\n" for line in lines)
    return lines


def test_a_line_is_there_before_its_newline(cache: Cache, top: Path, tmp_path: Path) -> None:
    best = pb.SummaryRecord(update=[pb.SummaryItem(nested_key=["best"], value_json="NaN")])  # which is no JSON
    log = [*header("bar"), lw.record("core", 3, summary=best), *rows(range(2)), said("training starts\n")]
    log += [said("\rstep 1/9"), said("\rstep 2/9")]

    def after(*more: bytes) -> list[str]:
        log.extend(more)
        put(top, "bar", log)
        sync_local(cache, [top])
        return shown(cache, tmp_path)

    assert after() == ["training starts", "step 2/9"]
    assert after(cried("a warn")) == ["training starts", "a warn", "step 2/9"]
    assert after(said("\rstep 9/9\n")) == ["training starts", "step 9/9", "a warn"]
    assert after(cried("ing")) == ["training starts", "step 9/9", "a warning"]
    assert after(end()) == ["training starts", "step 9/9", "a warning"]


def test_the_only_line_of_a_run_is_there_too(cache: Cache, top: Path, tmp_path: Path) -> None:
    put(top, "bar", [*header("bar"), *rows(range(2)), said("Killed")])
    sync_local(cache, [top])
    assert shown(cache, tmp_path) == ["Killed"]
    assert query.history(cache, ref("bar"), ["stderr"], stream="console").num_rows == 0
