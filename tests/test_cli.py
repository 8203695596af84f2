"""The commands as a person or an agent meets them: output, exit codes, errors of one line, nothing left half done."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from shell import Shell

from wandbsync import output

LOGS = Path(__file__).with_name("logs")


def put_log(folder: Path, name: str, *, run_id: str | None = None) -> Path:
    """Lay an old log where the SDK would have written it."""
    run_id = run_id or json.loads((LOGS / f"{name}.json").read_text())["run_id"]
    place = folder / "wandb" / f"offline-run-20240101_000000-{run_id}"
    place.mkdir(parents=True)
    shutil.copy(LOGS / f"{name}.wandb", place / f"run-{run_id}.wandb")
    return place / f"run-{run_id}.wandb"


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Three runs of the project `fixture`, synced."""
    shell = Shell(tmp_path_factory.mktemp("cli"))
    for name in ("0.31", "0.27", "0.12.21"):
        put_log(shell.folder / "jobs", name)
    shell("sync", "--local", "jobs")
    return shell


@pytest.fixture
def fresh(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def ids(shell: Shell) -> list[str]:
    return [run["id"] for run in shell.json("list-runs", "fixture")]


# -- lists


def test_a_long_key_does_not_fill_the_screen() -> None:
    assert len(output.summary_line({"a" * 70_000: 1.5, "b": "c" * 1000})) < 100
    assert output.summary_line({"loss": 0.5, "_step": 3, "n": {"a": 1}}) == "loss=0.5"


def test_list_projects(shell: Shell) -> None:
    (project,) = shell.json("list-projects")
    assert {"name", "entity", "description", "created_at", "url", "synced_at", "source", "complete"} <= set(project)
    assert (project["name"], project["entity"], project["runs"]) == ("fixture", "local", 3)
    assert "fixture" in shell("list-projects").stdout
    assert shell.json("list-projects", "--entity", "nobody") == []


def test_list_runs(shell: Shell) -> None:
    runs = shell.json("list-runs", "local/fixture")
    assert len(runs) == 3
    fields = {"id", "name", "state", "created_at", "summary_metrics", "tags", "synced_at", "source", "complete"}
    for run in runs:
        assert fields <= set(run)
        assert run["state"] == "finished" and run["complete"] is True and run["source"] == "local"
    assert [run["created_at"] for run in runs] == sorted((run["created_at"] for run in runs), reverse=True)
    assert shell.json("list-runs", "fixture", "--state", "running") == []
    done = shell("list-runs", "fixture", "--limit", "1")
    assert "1 of 3 runs shown" in done.stderr and len(done.stdout.splitlines()) == 3
    assert len(shell.json("list-runs", "fixture", "--limit", "0")) == 3


def test_list_metrics_counts_over_the_whole_history(shell: Shell) -> None:
    expected = json.loads((LOGS / "0.31.json").read_text())
    losses = [row["loss"] for _, row in expected["rows"] if "loss" in row]
    metrics = shell.json("list-metrics", "fixture", expected["run_id"])
    assert metrics["loss"]["count"] == metrics["loss"]["non_null_count"] == len(losses)
    finite = [one for one in losses if one == one and abs(one) != float("inf")]
    assert metrics["loss"]["min"] == min(finite) and metrics["loss"]["max"] == max(finite)
    assert metrics["loss"]["mean"] == pytest.approx(sum(finite) / len(finite), rel=1e-12)
    assert not any(key.startswith("_") for key in metrics)
    system = shell.json("list-metrics", "fixture", expected["run_id"], "--include-system")
    assert system["_step"]["count"] == len(expected["rows"]) and "_timestamp" in system
    assert {"synced_at", "source", "complete"} <= set(metrics["loss"])


def test_a_run_goes_by_its_display_name_too(shell: Shell, fresh: Shell) -> None:
    put_log(fresh.folder, "0.31")
    fresh("sync", "--local", ".")
    name = fresh.json("list-runs", "fixture")[0]["name"]
    assert fresh.json("list-metrics", "fixture", name)
    assert name in shell.error("list-metrics", "fixture", name, code=2)  # three runs have it: which one?


def test_list_files(fresh: Shell) -> None:
    log = put_log(fresh.folder, "0.31")
    (log.parent / "files" / "media" / "images").mkdir(parents=True)
    (log.parent / "files" / "media" / "images" / "a b.png").write_bytes(b"12345")
    (log.parent / "files" / "output.log").write_text("hello\n")
    fresh("sync", "--local", ".")
    files = fresh.json("list-files", "fixture", ids(fresh)[0])
    assert [(one["name"], one["size"]) for one in files] == [("media/images/a b.png", 5), ("output.log", 6)]
    assert files[0]["mimetype"] == "image/png" and Path(files[0]["local_path"]).exists()


# -- SQL


def test_sql_formats_agree(shell: Shell) -> None:
    query = "SELECT run_id, step, value FROM history WHERE key = 'loss' ORDER BY run_id, step"
    rows = json.loads(shell("sql", query, "--format", "json").stdout)
    parsed = list(csv.DictReader(io.StringIO(shell("sql", query, "--format", "csv").stdout)))
    assert [
        (r["run_id"], int(r["step"]), float(r["value"])) for r in parsed if r["value"] not in ("", "nan", "inf")
    ] == [(r["run_id"], r["step"], r["value"]) for r in rows if isinstance(r["value"], float)]
    shell("sql", query, "--format", "parquet", "-o", "out.parquet")
    assert pq.read_table(shell.folder / "out.parquet").num_rows == len(rows) > 100
    shown = shell("sql", query)
    assert len(shown.stdout.splitlines()) == 102 and "first 100 rows" in shown.stderr
    assert len(shell("sql", query, "--limit", "0").stdout.splitlines()) == len(rows) + 2
    assert shell("sql", "-", stdin="SELECT 42 AS answer").stdout.split() == ["answer", "------", "42"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nothing", "nothing"),
        ("COPY (SELECT 1) TO 'stolen.csv'", "only queries"),
        ("SELECT * FROM read_csv('/etc/passwd')", "disabled"),
        ("SELECT 1; SELECT 2", "one query at a time"),
        ("", "no query"),
    ],
)
def test_sql_only_reads(shell: Shell, query: str, told: str) -> None:
    assert told in shell.error("sql", query, code=2)
    assert not (shell.folder / "stolen.csv").exists()


def test_sql_schema_names_every_table_and_column(shell: Shell) -> None:
    text = shell("sql", "--schema").stdout
    columns = json.loads(
        shell(
            "sql",
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'main'",
            "--format",
            "json",
        ).stdout
    )
    for one in columns:
        if not one["table_name"].startswith("_"):
            section = text.split(f"{one['table_name']}: ", 1)[1].split("\n\n")[0]
            assert f"    {one['column_name']}" in section


def test_parquet_wants_a_file(shell: Shell) -> None:
    assert "-o" in shell.error("sql", "SELECT 1", "--format", "parquet", code=2)
    assert "cannot write" in shell.error("sql", "SELECT 1", "-o", "no/such/folder/x.csv", code=1)


# -- plots


def test_generate_plots(shell: Shell) -> None:
    run = ids(shell)[0]
    done = shell("generate-plots", "fixture", run, "--metrics", "loss,acc")
    files = [shell.folder / line for line in done.stdout.split("\n") if line]
    assert [file.name for file in files] == ["loss.png", "acc.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    folder = files[0].parent
    assert folder.parent == shell.folder / "wandb_plots" / "local_fixture" and folder.name.endswith(f"_{run}")
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["run_id"] == run and metadata["metrics_plotted"] == ["loss", "acc"] and metadata["plot_count"] == 2


def test_several_runs_and_all_metrics(shell: Shell) -> None:
    results = shell.json("generate-plots", "fixture", ",".join(ids(shell)[:2]), "--all-metrics", "--output", "all")
    assert {"loss", "acc"} <= {result["metric"] for result in results}
    assert all(len(result["runs"]) == 2 for result in results if result["metric"] in ("loss", "acc"))
    assert not any(result["metric"].startswith("_") for result in results)


def test_missing_metrics_are_named_with_near_matches(shell: Shell) -> None:
    error = shell.error("generate-plots", "fixture", ids(shell)[0], "--metrics", "lossy", "--output", "none", code=2)
    assert "lossy" in error and "did you mean" in error and "loss" in error
    assert not (shell.folder / "none").exists()
    assert "--metrics" in shell.error("generate-plots", "fixture", ids(shell)[0], code=2)
    error = shell.error("generate-plots", "fixture", ids(shell)[0], "--metrics", "loss", "--ema-weight", "7", code=2)
    assert "ema-weight" in error


def test_a_metric_that_is_no_number_cannot_be_drawn(shell: Shell) -> None:
    done = shell("generate-plots", "fixture", ids(shell)[0], "--metrics", "loss,text", "--output", "some", code=3)
    assert done.stdout == "some/loss.png\n" and "text" in done.stderr


# -- names that are not there


def test_unknown_names_come_with_near_ones(shell: Shell) -> None:
    assert "local/fixture" in shell.error("list-runs", "local/fixtur", code=2)
    assert ids(shell)[0] in shell.error("list-metrics", "fixture", ids(shell)[0][:-1], code=2)
    assert "entity/project" in shell.error("list-runs", "a/b/c", code=2)


def test_nothing_cached(fresh: Shell) -> None:
    for words in (["list-projects"], ["list-runs", "x"], ["sql", "SELECT 1"], ["cache", "info"], ["cache", "verify"]):
        assert "nothing is cached" in fresh.error(*words, code=5)
    assert not fresh.cache.exists()
    assert "--local" in fresh.error("sync", code=2)


def test_usage_errors_exit_with_2(fresh: Shell) -> None:
    fresh("no-such-command", code=2)
    fresh("list-runs", code=2)
    fresh("list-runs", "x", "--limit", "many", code=2)
    put_log(fresh.folder, "0.31")
    fresh("sync", "--local", ".")
    assert "contradict" in fresh.error("list-projects", "--offline", "--refresh", code=2)
    assert "--max-age" in fresh.error("list-projects", "--max-age", "soon", code=2)


# -- sync


def test_dry_run_prints_the_plan_and_leaves_nothing(fresh: Shell) -> None:
    log = put_log(fresh.folder, "0.31")
    plan = fresh("sync", "--local", ".", "--dry-run").stdout
    assert "read local/fixture/" in plan and str(log) in plan and "(new)" in plan
    assert not fresh.cache.exists()
    fresh("sync", "--local", ".")
    assert fresh("sync", "--local", ".", "--dry-run").stdout == "nothing to do\n"


def test_sync_again_finds_nothing_new(fresh: Shell) -> None:
    put_log(fresh.folder, "0.31")
    first = fresh.json("sync", "--local", ".")
    assert (first["runs"], first["new_runs"], first["partial"]) == (1, 1, False) and first["rows"] > 0
    again = fresh.json("sync")  # the folder is remembered
    assert (again["logs"], again["runs"], again["bytes_read"], again["planned"]) == (1, 0, 0, [])
    full = fresh.json("sync", "--full")
    assert full["rows"] == first["rows"] and fresh("cache", "verify").stdout.endswith("the cache is sound\n")


def test_bad_logs_are_named_and_do_not_stop_the_others(fresh: Shell) -> None:
    good = put_log(fresh.folder, "0.31")
    content = good.read_bytes()
    for name, bad in {
        "empty": b"",
        "alien": b"PK\x03\x04" + content,
        "newer": content[:6] + b"\x01" + content[7:],
    }.items():
        put_log(fresh.folder, "0.27", run_id=name).write_bytes(bad)
    put_log(fresh.folder, "0.27", run_id="dir").unlink()
    (fresh.folder / "wandb" / "offline-run-20240101_000000-dir" / "run-dir.wandb").mkdir()
    put_log(fresh.folder, "0.27", run_id="torn").write_bytes((LOGS / "0.27.wandb").read_bytes()[:-1000])
    done = fresh("sync", "--local", ".", code=3)
    assert "2 runs" in done.stdout
    for told in ("run-empty.wandb", "run-alien.wandb is not a W&B log", "newer SDK"):
        assert told in done.stderr
    assert {run["state"] for run in fresh.json("list-runs", "fixture")} == {"finished", "crashed"}
    again = fresh("sync", code=3)  # still unread, and still said
    assert "not a W&B log" in again.stderr
    assert "verify" not in again.stderr and fresh("cache", "verify").stdout == "the cache is sound\n"


def test_folders_without_runs(fresh: Shell) -> None:
    (fresh.folder / "empty").mkdir()
    assert "no W&B run" in fresh("sync", "--local", "empty", code=1).stderr
    assert "no folder" in fresh.error("sync", "--local", "missing", code=2)


def test_reading_commands_look_again_when_the_answer_is_old(fresh: Shell) -> None:
    put_log(fresh.folder, "0.31")
    fresh("sync", "--local", ".")
    put_log(fresh.folder, "0.27")
    assert len(ids(fresh)) == 1
    assert len(fresh.json("list-runs", "fixture", "--max-age", "0s", "--offline")) == 1
    assert len(fresh.json("list-runs", "fixture", "--refresh")) == 2
    shutil.rmtree(fresh.folder / "wandb")
    gone = fresh("list-runs", "fixture", "--refresh")
    assert len(gone.stdout.splitlines()) == 4  # what was read stays


def test_ctrl_c_exits_with_130_and_loses_nothing(fresh: Shell) -> None:
    for i in range(300):
        put_log(fresh.folder, "0.31", run_id=f"copy{i}")
    command = [sys.executable, "-m", "wandbsync", "sync", "--local", "."]
    process = subprocess.Popen(command, cwd=fresh.folder, env=fresh.env, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 30
    while not fresh.cache.exists() and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode in (130, 0) and "Traceback" not in said
    fresh("sync", "--local", ".")
    assert "sound" in fresh("cache", "verify").stdout


# -- the rest


def test_cache_commands(fresh: Shell) -> None:
    put_log(fresh.folder, "0.31")
    fresh("sync", "--local", ".")
    info = fresh.json("cache", "info")
    assert info["runs"] == 1 and info["values"] > 0 and info["segment_bytes"] > 0
    assert fresh("cache", "compact").stdout == "nothing to merge\n"
    assert "0 files" in fresh("cache", "gc", "--dry-run").stdout
    (segment,) = (fresh.cache / "history").rglob("*.parquet")
    segment.write_bytes(segment.read_bytes()[:-1])
    damaged = fresh("cache", "verify", code=1)
    assert "altered" in damaged.stdout and segment.name in damaged.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
@pytest.mark.parametrize("words", [["list-runs", "fixture", "--json"], ["--help"], ["sql", "SELECT 1"]])
def test_output_that_cannot_be_written_is_told(shell: Shell, words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wandbsync", *words], env=shell.env, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "No space left" in done.stderr


def test_the_name_of_a_file_tells_its_format(shell: Shell) -> None:
    for name, form in (("a.csv", "csv"), ("a.JSON", "json"), ("a.txt", "table")):
        shell("sql", "SELECT 1 AS one", "-o", name)
        told = (shell.folder / name).read_text()
        shell("sql", "SELECT 1 AS one", "--format", form, "-o", "other")
        assert told == (shell.folder / "other").read_text()
    shell("sql", "SELECT 1 AS one", "-o", "a.parquet")
    assert pq.read_table(shell.folder / "a.parquet").num_rows == 1
    shell("sql", "SELECT 1 AS one", "-o", "b.parquet", "--format", "csv")
    assert (shell.folder / "b.parquet").read_text() == "one\n1\n"


def test_problems_of_the_config_name_their_place(fresh: Shell) -> None:
    (fresh.folder / "c.toml").write_text("[nonsense]\n[cache]\nmax_age = 'soon'\nmin_age = 1\n[local]\nfolders = 3")
    error = fresh.error("--config", "c.toml", "config", "check", code=2)
    for part in ("4 problems", "[nonsense] in c.toml", "cache.max_age in c.toml: 'soon'", "cache.min_age in c.toml"):
        assert part in error
    fresh.env["WANDBSYNC_MAX_AGE"] = "banana"
    error = fresh.error("config", "show", code=2)
    assert "WANDBSYNC_MAX_AGE: 'banana'" in error and ".toml" not in error
    fresh.env["WANDBSYNC_MAX_AGE"] = "120s"
    assert "cache.max_age = 2m\n" in fresh("config", "show").stdout
    assert fresh.json("config", "show")["cache.max_age"] == 120


def test_config_commands(fresh: Shell) -> None:
    assert "defaults" in fresh("config", "check").stdout
    path = Path(fresh("config", "init").stdout.strip())
    assert path.is_file() and fresh("config", "check").stdout == f"{path} is right\n"
    assert "--force" in fresh.error("config", "init", code=2)
    path.write_text("[cache]\nmax_age = 'soon'\nsize = 3\n[locl]\nfolders = []\n")
    error = fresh.error("config", "check", code=2)
    assert "3 problems" in error and "cache.max_age" in error and "cache.size" in error and "[locl]" in error
    assert "not TOML" in fresh.error("--config", str(put_log(fresh.folder, "0.31")), "config", "show", code=2)
    path.write_text("[local]\nfolders = ['jobs']\nentity = 'me'\n")
    put_log(fresh.folder / "jobs", "0.27")
    assert fresh.json("list-runs", "me/fixture")[0]["entity"] == "me"  # read on demand, from the folder in the config


def test_two_syncs_at_once_do_not_get_in_each_others_way(fresh: Shell) -> None:
    for i in range(40):
        put_log(fresh.folder, "0.31", run_id=f"copy{i}")
    command = [sys.executable, "-m", "wandbsync", "sync", "--local", "."]
    both = [
        subprocess.Popen(command, cwd=fresh.folder, env=fresh.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "sound" in fresh("cache", "verify").stdout
    rows = {run["rows"] for run in fresh.json("list-runs", "fixture")}
    assert len(rows) == 1


def test_demo(fresh: Shell) -> None:
    done = fresh("demo", "--output", "show")
    assert "crashed" in done.stdout and "demo-eager" in done.stdout and "The pictures are in show/plots" in done.stderr
    assert (fresh.folder / "show" / "plots" / "train_loss.png").exists()
    (fresh.folder / "mine").mkdir()
    (fresh.folder / "mine" / "thesis.tex").touch()
    assert "in use" in fresh.error("demo", "--output", "mine", code=2)


def test_after_a_sync_any_duckdb_client_reads_the_cache(fresh: Shell) -> None:
    import duckdb

    put_log(fresh.folder, "0.31")
    fresh("sync", "--local", ".")
    put_log(fresh.folder, "0.27")
    fresh("--cache-dir", "cache", "sync", "--local", ".")  # a relative path must not get into the views
    with duckdb.connect(str(fresh.cache / "wandb.duckdb"), read_only=True) as con:
        assert con.sql("SELECT count(DISTINCT run_id) FROM history").fetchall() == [(2,)]


def test_many_small_syncs_leave_few_segments(fresh: Shell) -> None:
    from wandbsync.cache import Cache
    from wandbsync.cache.upkeep import upkeep
    from wandbsync.sync import sync_local

    with Cache(fresh.cache) as cache:
        for i in range(70):
            put_log(fresh.folder, "0.31", run_id=f"copy{i}")
            sync_local(cache, [fresh.folder / "wandb"])
        upkeep(cache)
        assert cache.con.execute("SELECT count(*) FROM segments WHERE removed_at IS NULL").fetchone()[0] < 35
    assert "sound" in fresh("cache", "verify").stdout


def test_verbose_says_what_is_done(fresh: Shell) -> None:
    put_log(fresh.folder, "0.31")
    assert "read local/fixture/" in fresh("-v", "sync", "--local", ".").stderr
    assert str(fresh.cache) in fresh("-v", "list-projects").stderr
    assert fresh("-q", "list-runs", "fixture", "--limit", "1").stderr == ""
