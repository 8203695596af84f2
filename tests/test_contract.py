"""`wandbsync.Api` against `wandb.Api`: the same questions to both, over the same server, compared value by value.

ASKED is what has to be equal. DIFFERENCES is what is not, on purpose, with what each says; docs/api.md lists the same.
Then the drop-in alone, with the server gone, has to give once more what it gave.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from wandb_server import Server

pytest.importorskip("pandas")
pytest.importorskip("polars")

import wandbsync

HERE = Path(__file__).parent
PIXEL = b"\x89PNG\r\n\x1a\n not much of a picture"
AT = datetime(2026, 1, 1, tzinfo=timezone.utc)
META = b'{"os": "Linux", "python": "CPython 3.11", "cpu_count": 2}'


def rows(count: int, *, none: bool = True, odd: bool = True) -> list[dict[str, Any]]:
    """Of every kind: whole and other floats, NaN, None, big integers, text, lists, nested names, keys that come late.

    `none`: one None among them; `odd`: NaN and infinities too.
    """
    made: list[dict[str, Any]] = [
        {
            "loss": 1.0 / (i + 1), "n": i, "whole": float(i), "big": 2**60 + i, "nest": {"a": i, "b": {"c": i / 3}},
            "a.dot": i / 7, "text": f"x{i}", "list": [1.0, 2.5, i], "flag": i % 2 == 0,
        }
        for i in range(count)
    ]  # fmt: skip
    if odd:
        made[3]["loss"], made[4]["loss"], made[5]["loss"] = float("nan"), float("inf"), float("-inf")
    if none:
        made[8]["loss"] = None
    made[6]["whole"], made[7]["whole"] = 1e20, 1e300
    del made[9]["n"]
    made[10]["late"] = 1.5
    return made


def seed(server: Server) -> None:
    events = [
        {"_timestamp": 1.7e9 + i, "_runtime": float(i), "system.cpu": 10.0 + i, "system.gpu": i / 3} for i in range(5)
    ]
    kinds: dict[str, Any] = {
        "config": {"lr": 0.1, "opt": {"name": "adam", "betas": [0.9, 1.0]}, "k": 1.0, "none": None, "a.b": 1},
        "files": {"media/images/x.png": PIXEL, "output.log": b"hello\n", "wandb-metadata.json": META},
        "console": ["first", "second"],
        "events": events,
        "tags": ["best", "grün"],
        "notes": "two\nlines",
        "group": "g",
        "job_type": "train",
        "display_name": "a bit of everything",
    }
    server.add_run("me", "demo", "live", rows(20), created_at=AT, **kinds)
    exported = rows(20, none=False)
    server.add_run("me", "demo", "exported", exported, exported=20, created_at=AT + timedelta(days=1), **kinds)
    server.add_run("me", "demo", "plain", rows(20, odd=False), created_at=AT + timedelta(days=5))
    server.add_run("me", "demo", "nulls", [{"a": None, "b": 1}], exported=1, created_at=AT + timedelta(days=6))
    server.add_run("me", "demo", "empty", created_at=AT + timedelta(days=2))
    server.add_run("me", "demo", "long", {"x": list(range(3000))}, exported=2000, created_at=AT + timedelta(days=3))
    server.add_run("me", "demo", "going", [{"x": 1}], state="running", created_at=AT + timedelta(days=4))
    sweep = "name: hunt\nmethod: grid\nmetric: {name: val/loss, goal: minimize}\nparameters: {lr: {values: [1, 2]}}\n"
    server.add_sweep("me", "tuning", "sw", sweep, runCountExpected=6)
    for i in range(12):  # to be filtered and ordered
        server.add_run(
            "me", "tuning", f"t{i:02}", [{"val/loss": (i * 7 % 12) / 4, "epoch": i}],
            config={"lr": 10.0 ** -(i % 4), "depth": i, "opt": {"name": ["adam", "sgd"][i % 2]}}
            | ({"rare": True} if i == 5 else {}),
            created_at=AT + timedelta(hours=i), state=["finished", "crashed", "failed"][i % 3],
            tags=["even"] if i % 2 == 0 else ["odd", "late"], group=f"g{i // 4}", job_type=["train", "eval"][i % 2],
            display_name=f"eager-fox-{i}", username="me", sweep_name="sw" if i < 6 else None,
        )  # fmt: skip


RUNS = ("live", "exported", "empty", "going", "full")
OF_A_RUN = {
    "id": "{0}.id", "name": "{0}.name", "state": "{0}.state", "config": "{0}.config", "summary": "{0}.summary",
    "summary_metrics": "{0}.summary_metrics", "tags": "{0}.tags", "group": "{0}.group", "job_type": "{0}.job_type",
    "notes": "{0}.notes", "created_at": "{0}.created_at", "createdAt": "{0}.createdAt",
    "heartbeat_at": "{0}.heartbeat_at", "url": "{0}.url", "path": "{0}.path", "entity": "{0}.entity",
    "project": "{0}.project", "sweep": "{0}.sweep", "sweep_name": "{0}.sweep_name", "last": "{0}.lastHistoryStep",
    "metadata": "{0}.metadata", "system_metrics": "{0}.system_metrics", "repr": "repr({0})",
    "lines": "{0}.historyLineCount",
    "summary_read": "[sorted({0}.summary.keys()), {0}.summary.get('loss'), 'n' in {0}.summary, dict({0}.summary.items()),"
    " {0}.summary.get('nothing', 7)]",
    "history": "{0}.history(samples=5000, pandas=False)", "history_pandas": "{0}.history(samples=5000)",
    "history_keys": "{0}.history(samples=5000, keys=['loss', 'n'], pandas=False)",
    "history_nested": "{0}.history(samples=5000, keys=['nest.a', 'nest.b.c', 'nest', 'a.dot'], pandas=False)",
    "history_axis": "{0}.history(samples=5000, keys=['loss'], x_axis='n', pandas=False)",
    "history_absent": "{0}.history(keys=['nothing'], pandas=False)",
    "history_bad_keys": "[{0}.history(keys='loss'), {0}.history(keys=['loss'], stream='system')]",
    "system": "{0}.history(stream='system', samples=5000, pandas=False)",
    "files": "sorted((file.name, file.size, file.md5, file.mimetype, file.updated_at) for file in {0}.files())",
    "files_some": "[[file.name for file in {0}.files(pattern='%.png')], len({0}.files()), {0}.files(['output.log'])[0].name]",
    "file_url": "{0}.file('output.log').url", "file_repr": "repr({0}.file('output.log'))",
    "files_repr": "repr({0}.files())", "download": "{0}.file('media/images/x.png').download(root='{0}', replace=True).name",
    "downloaded": "Path('{0}/media/images/x.png').read_bytes().hex()",
    "download_again": "{0}.file('output.log').download(root='{0}', exist_ok=True).read()",
    "console": "list({0}.console_logs())", "console_last": "[line.content for line in {0}.console_logs(last=1)]",
    "absent_attribute": "{0}.nothing",
}  # fmt: skip
SCANS = {  # of runs whose rows are not exported, where the SDK leaves out what was not logged
    "scan": "list({0}.scan_history())", "scan_keys": "list({0}.scan_history(keys=['loss', 'n']))",
    "scan_nested": "list({0}.scan_history(keys=['nest.a']))", "scan_part": "list({0}.scan_history(min_step=3, max_step=7))",
    "scan_small": "list({0}.scan_history(page_size=7))[-1]", "scan_over": "len(list({0}.scan_history(max_step=10**6)))",
    "scan_bounds": "[{0}.scan_history(min_step=2).min_step, {0}.scan_history().max_step, {0}.scan_history(keys=['n']).keys]",
    "scan_bad": "{0}.scan_history(keys='loss')",
}  # fmt: skip
FILTERS: list[Any] = [
    {}, {"state": "finished"}, {"state": {"$ne": "finished"}}, {"state": {"$in": ["crashed", "failed"]}},
    {"config.lr": 0.1}, {"config.lr": {"$gt": 0.001, "$lte": 0.1}}, {"config.lr.value": {"$gte": 0.1}},
    {"config.opt.name": "sgd"}, {"config.opt.value.name": "sgd"}, {"config.rare": {"$exists": True}},
    {"config.rare": {"$exists": False}}, {"config.rare": None}, {"summary_metrics.val/loss": {"$lt": 1}},
    {"summary_metrics.epoch": {"$nin": [1, 2, 3]}}, {"tags": "even"}, {"tags": {"$in": ["late"]}},
    {"tags": {"$nin": ["late"]}}, {"display_name": {"$regex": "fox-1"}}, {"displayName": "eager-fox-3"},
    {"name": {"$in": ["t01", "t02"]}}, {"group": "g1"}, {"jobType": "eval"}, {"job_type": "eval"},
    {"createdAt": {"$gt": "2026-01-01T05:30:00Z"}}, {"created_at": {"$lt": "2026-01-01T03:00:00"}},
    {"$and": [{"config.depth": {"$gt": 2}}, {"state": "finished"}]},
    {"$or": [{"config.depth": 1}, {"name": "t09"}]}, {"$nor": [{"state": "finished"}, {"group": "g0"}]},
    {"config.depth": {"$not": {"$gt": 4}}}, {"config.depth": {"$gt": "four"}}, {"config.lr": {"$eq": 1}},
]  # fmt: skip
ORDERS = ["+created_at", "-created_at", "created_at", "+config.depth.value", "-config.depth", "-summary_metrics.val/loss",
          "+summary_metrics.epoch", "-config.rare", "-heartbeat_at", ""]  # fmt: skip

ASKED: dict[str, str] = {f"{run}": f"api.run('me/demo/{run}')" for run in RUNS}
ASKED |= {f"{run}_{name}": text.format(run) for run in RUNS for name, text in OF_A_RUN.items()}
ASKED |= {f"{run}_{name}": text.format(run) for run in ("plain", "empty", "going") for name, text in SCANS.items()}
ASKED |= {f"filter_{i}": f"[run.id for run in api.runs('me/tuning', {one!r})]" for i, one in enumerate(FILTERS)}
ASKED |= {f"order_{i}": f"[run.id for run in api.runs('me/tuning', order={one!r})]" for i, one in enumerate(ORDERS)}
ASKED |= {
    "default_entity": "api.default_entity",
    "viewer": "[api.viewer.username, api.viewer.entity, api.viewer.name, api.viewer.teams]",
    "projects": "sorted((one.name, one.entity, one.url, one.created_at, repr(one)) for one in api.projects('me'))",
    "projects_repr": "repr(api.projects('me'))",
    "project": "(lambda one: [one.name, one.entity, one.url, one.path, one.created_at, repr(one)])(api.project('demo'))",
    "runs": "api.runs('me/demo')", "runs_again": "api.runs('me/demo') is runs", "runs_repr": "repr(runs)",
    "runs_length": "len(runs)", "runs_first": "[runs[0].id, [run.id for run in runs[1:3]], [run.id for run in runs]]",
    "runs_next": "[next(iter(runs)).id, next(runs).id, len(list(runs))]",
    "runs_lazy": "[run.id for run in api.runs('me/demo', lazy=False, per_page=2)]",
    "runs_of_default": "[run.id for run in api.runs('demo')]",
    "runs_configs": "[run.config for run in api.runs('me/tuning')]",
    "runs_summaries": "[run.summary._json_dict for run in api.runs('me/tuning')]",
    "histories": "api.runs('me/tuning').histories()",
    "histories_pandas": "api.runs('me/tuning').histories(keys=['epoch'], format='pandas')",
    "histories_polars": "api.runs('me/tuning').histories(keys=['epoch'], format='polars')",
    "histories_none": "api.runs('me/tuning').histories(keys=['nothing'])",
    "histories_bad": "api.runs('me/tuning').histories(format='excel')",
    "path_1": "api.run('me/demo/runs/live').id", "path_2": "api.run('demo/live').id", "path_3": "api.run('demo:live').id",
    "path_4": "api.run('me/demo:live').id", "path_5": "api.run('/me/demo/live').id", "path_same": "api.run('demo/live') is api.run('demo/live')",
    "from_path": "[repr(api.from_path('demo')), repr(api.from_path('me/demo')), repr(api.from_path('me/demo/runs/live'))]",
    "flushed": "api.flush()", "flushed_again": "api.runs('me/demo') is runs",
    "changed": "[setattr(live, 'name', 'mine'), live.name, live.load(force=True)['displayName'], live.name]",
    "user": "(lambda run: [run.user.username, run.user.name])(api.run('me/tuning/t00'))",
    "sweep": "(lambda one: [one.id, one.name, one.entity, one.project, one.state, one.config, one.order, one.path, one.url,"
    " one.expected_run_count, repr(one), one.best_run().id, one.best_run('-epoch').id])(api.sweep('me/tuning/sw'))",
    "sweep_runs": "[run.id for run in api.from_path('me/tuning/sweeps/sw').runs]", "no_sweep": "api.sweep('me/tuning/no')",
    "sweep_of_runs": "[run.sweep and run.sweep.id for run in api.runs('me/tuning')]",
    "sweeps": "[[one.id for one in api.project('tuning').sweeps()], repr(api.project('tuning').sweeps())]",
    "finished": "exported.wait_until_finished()",
    "long_history": "long.history(samples=3000, pandas=False)", "long_scan_end": "list(long.scan_history())[-1]",
    "long_sampled": "long.history(samples=100, pandas=False)", "long_sampled_keys": "long.history(samples=7, keys=['x'])",
}  # fmt: skip
ASKED = {name: f"api.run('me/demo/{name}')" for name in ("long", "plain", "nulls")} | ASKED
del ASKED["full_system"]  # see DIFFERENCES
ASKED |= {  # what an export names with dots: see DIFFERENCES
    "exported_history": "[{key: row[key] for key in row if key[:4] != 'nest'} "
    "for row in exported.history(samples=5000, pandas=False)]",
    "exported_history_pandas": "exported.history(samples=5000).filter(regex='^(?!nest)')",
    "exported_history_nested": "exported.history(samples=5000, keys=['nest.a', 'nest.b.c', 'a.dot'], pandas=False)",
}

# what docs/api.md says of it -> (expression, what the SDK gives, what the drop-in gives)
DIFFERENCES: dict[str, tuple[str, Any, Any]] = {
    "A scan of exported rows has None for keys that a row does not have; here they are absent.": (
        "[repr(row.get('late', 'absent')) for row in exported.scan_history()][:2]", ["None"] * 2, ["'absent'"] * 2),
    "A scan of rows that are not exported yet has NaN and infinities as text; here they are floats.": (
        "[repr(row['loss']) for row in live.scan_history()][3:6]",
        ["'NaN'", "'Infinity'", "'-Infinity'"], ["nan", "inf", "-inf"]),
    "A scan of exported rows for some keys also gives rows that lack some of them; here none does.": (
        "str(len(list(exported.scan_history(keys=['loss', 'n']))))", "20", "19"),
    "What was logged nested has dotted names in an exported history, as in the export; the SDK's samples nest it.": (
        "str([key for key in sorted(exported.history(samples=5000, pandas=False)[0]) if key.startswith('nest')])",
        "['nest']", "['nest.a', 'nest.b.c']"),
    "None that was logged cannot be told from nothing in an exported history, so it is absent here.": (
        "str(sorted(nulls.history(pandas=False)[0]))", "['_step', 'a', 'b']", "['_step', 'b']"),
    "Samples of the machine carry a mark _wandb; here they do not.": (
        "str('_wandb' in full.history(stream='system', pandas=False)[0])", "True", "False"),
    "A user shows the e-mail address; here the name.": (
        "repr(api.viewer)", "<User me@example.invalid>", "<User me>"),
    "What is not there raises wandb.errors.CommError; here wandbsync.NotFound, which is a ValueError too.": (
        "api.run('me/demo/nope')", ["raises"], ["raises", "ValueError"]),
    "A filter for a field that the server does not know raises its error; here wandbsync.UsageError.": (
        "len(api.runs('me/tuning', {'bogus': 1}))", ["raises"], ["raises"]),
}  # fmt: skip
# What only W&B itself has or does.
REFUSED = {
    "update of a run": "live.update()", "delete of a run": "live.delete()", "artifacts": "api.artifact('a:v0')",
    "summary": "live.summary.update({'a': 1})", "summary item": "live.summary.__setitem__('a', 1)",
    "reports": "api.reports('me/demo')", "upload": "live.upload_file('x')",
    "storage_id": "live.storage_id", "artifacts of a run": "live.logged_artifacts()",
    "delete of a file": "live.file('output.log').delete()",
    "e-mail": "api.viewer.email", "exports": "live.download_history_exports('x')", "raw config": "live.rawconfig",
    "from_path": "api.from_path('me/demo/artifacts/a')", "create_run": "api.create_run()",
    "agents": "api.sweep('me/tuning/sw').agents()",
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract")


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    with Server() as one:
        seed(one)
        env = os.environ | one.env_in(place)
        subprocess.run(
            [sys.executable, str(HERE / "wandb_server/sdk.py"), "full"],
            cwd=place, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120,
        )  # fmt: skip
        yield one


def ask(which: str, server: Server, place: Path, questions: dict[str, str]) -> dict[str, Any]:
    folder = place / which
    folder.mkdir(exist_ok=True)
    env = os.environ | server.env_in(place) | {"WANDBSYNC_CACHE_DIR": str(place / "cache")}
    done = subprocess.run(
        [sys.executable, str(HERE / "contract.py"), which],
        cwd=folder, env=env, input=json.dumps(questions), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def answers(server: Server, place: Path) -> dict[str, dict[str, Any]]:
    differences = {f"difference_{i}": text for i, (text, _, _) in enumerate(DIFFERENCES.values())}
    found = {which: ask(which, server, place, ASKED | differences) for which in ("wandb", "wandbsync")}
    server.reset_counts()
    found["offline"] = ask("offline", server, place, ASKED)
    found["counts"] = dict(server.counts)
    return found


def raises(answer: Any) -> bool:
    return isinstance(answer, list) and answer[:1] == ["raises"]


@pytest.mark.parametrize("name", ASKED)
def test_the_same(answers: dict[str, dict[str, Any]], name: str) -> None:
    theirs, ours = answers["wandb"][name], answers["wandbsync"][name]
    if not (raises(theirs) and raises(ours)):  # the words and classes differ: see DIFFERENCES
        assert ours == theirs, ASKED[name]


@pytest.mark.parametrize("number", range(len(DIFFERENCES)), ids=list(DIFFERENCES))
def test_what_differs_on_purpose(answers: dict[str, dict[str, Any]], number: int) -> None:
    said, (_, theirs, ours) = list(DIFFERENCES.items())[number]
    found = [answers[which][f"difference_{number}"] for which in ("wandb", "wandbsync")]
    assert [one[:-1] if raises(one) else one for one in found] == [theirs, ours]
    assert said in (HERE.parent / "docs/api.md").read_text().replace("\n  ", " ").replace("`", "")


def test_offline_it_gives_the_same_and_asks_nobody(answers: dict[str, dict[str, Any]]) -> None:
    assert answers["counts"] == {}
    for name, text in ASKED.items():
        ours, offline = answers["wandbsync"][name], answers["offline"][name]
        assert offline == ours or (raises(offline) and raises(ours)) or name == "going_finished", text


def test_what_is_not_mirrored_names_the_call_for_it(server: Server, place: Path, monkeypatch: Any) -> None:
    for name, value in (server.env_in(place) | {"WANDBSYNC_CACHE_DIR": str(place / "cache")}).items():
        monkeypatch.setenv(name, value)
    api = wandbsync.Api()
    live = api.run("me/demo/live")
    for what, text in REFUSED.items():
        with pytest.raises(wandbsync.NotMirrored) as error:
            eval(text, {"api": api, "live": live})
        assert re.search(r"wandb\.Api\(\)\.\w+", error.value.hint), what
        assert "of the wandb SDK" in error.value.line()
    assert not hasattr(api, "artifact") and not hasattr(live, "storage_id")  # for scripts that ask first
    with pytest.raises(wandbsync.UsageError) as error:
        wandbsync.Api(api_key="x" * 40)
    assert "WANDB_API_KEY" in error.value.hint


# -- scripts as people write them, after W&B's public guides

SCRIPTS = {
    "export every run's summary, config and name": """
        import pandas as pd
        import wandb

        api = wandb.Api()
        summaries, configs, names = [], [], []
        for run in api.runs("me/tuning"):
            summaries.append(run.summary._json_dict)
            configs.append({k: v for k, v in run.config.items() if not k.startswith("_")})
            names.append(run.name)
        pd.DataFrame({"summary": summaries, "config": configs, "name": names}).to_csv("project.csv")
    """,
    "metrics of one run as csv": """
        import wandb

        api = wandb.Api()
        run = api.run("me/demo/live")
        run.history(keys=["n", "whole"]).to_csv("metrics.csv")
        if run.state == "finished":
            for i, row in run.history(keys=["n", "whole"], samples=1000).iterrows():
                print(i, row["_step"], row["n"], row["whole"])
        losses = [row["n"] for row in run.scan_history(keys=["n"])]
        print(len(losses), sum(losses))
    """,
    "compare two runs by their configs": """
        import pandas as pd
        import wandb

        api = wandb.Api()
        one, other = api.run("me/tuning/t01"), api.run("me/tuning/t06")
        table = pd.DataFrame([one.config, other.config]).transpose()
        table.columns = [one.name, other.name]
        print(table[table[one.name] != table[other.name]].to_string())
    """,
    "the best run by its summary": """
        import wandb

        api = wandb.Api()
        runs = api.runs("me/tuning", filters={"state": "finished", "tags": {"$in": ["even"]}}, order="+summary_metrics.val/loss")
        best = runs[0]
        print(best.name, best.config["lr"], best.summary.get("val/loss"), best.summary["epoch"], len(runs))
        worst = sorted(runs, key=lambda run: run.summary.get("val/loss", 0), reverse=True)[0]
        print(worst.id, worst.url, worst.created_at, worst.tags, "/".join(worst.path))
        every = api.runs("me/tuning", {"$or": [{"config.depth": {"$gte": 8}}, {"config.opt.name": "sgd"}]})
        print([run.name for run in every])
        print(every.histories(keys=["val/loss"], format="pandas").describe().to_string())
    """,
    "files and the machine": """
        import wandb

        api = wandb.Api()
        run = api.run("me/demo/live")
        for file in run.files():
            file.download(replace=True)
            print(file.name, file.size, file.mimetype)
        print(open("output.log").read(), run.metadata["python"])
        print(run.history(stream="system", pandas=False)[-1]["system.cpu"], run.system_metrics["system.cpu"])
        print(run.lastHistoryStep, [line.content for line in run.console_logs()])
    """,
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_with_one_import_changed(
    answers: dict[str, dict[str, Any]], server: Server, place: Path, name: str
) -> None:
    found = {}
    script = textwrap.dedent(SCRIPTS[name])
    changed = {"wandb": script, "wandbsync": script.replace("import wandb\n", "import wandbsync as wandb\n")}
    changed["offline"] = changed["wandbsync"].replace("wandb.Api()", "wandb.Api(offline=True)")
    for which, text in changed.items():
        folder = place / f"script-{which}-{list(SCRIPTS).index(name)}"
        folder.mkdir()
        env = os.environ | server.env_in(place) | {"WANDBSYNC_CACHE_DIR": str(place / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=folder, env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))
                 if path.is_file() and "wandb" not in path.relative_to(folder).parts}  # fmt: skip
        found[which] = done.stdout, files
    assert found["wandbsync"] == found["wandb"] and found["offline"] == found["wandb"]
    assert found["wandb"][0] or found["wandb"][1]


# Of the SDK's own workings, not for scripts.
INSIDE = {"snake_to_camel", "display", "QUERY", "variables", "cursor", "convert_objects", "update_variables"}
INSIDE |= {"last_response", "create", "to_html"}


def test_every_name_of_the_sdk_is_there_or_refused(
    answers: dict[str, dict[str, Any]], server: Server, place: Path, monkeypatch: Any
) -> None:
    from wandb.apis import public

    for name, value in (server.env_in(place) | {"WANDBSYNC_CACHE_DIR": str(place / "cache")}).items():
        monkeypatch.setenv(name, value)
    api = wandbsync.Api(offline=True)
    run = api.run("me/demo/live")
    pairs = {
        public.Api: api, public.Runs: api.runs("me/demo"), public.Run: run, public.Files: run.files(),
        public.File: run.file("output.log"), public.Project: api.project("demo"), public.User: api.viewer,
        public.Projects: api.projects("me"), public.HistoryScan: run.scan_history(), public.ConsoleLogs: run.console_logs(),
    }  # fmt: skip
    names = {(theirs, name) for theirs in pairs for name in dir(theirs) if not name.startswith("_")}
    assert [f"{one.__name__}.{name}" for one, name in names if name not in INSIDE and not known(pairs[one], name)] == []


def known(ours: Any, name: str) -> bool:
    try:
        getattr(ours, name)
    except wandbsync.NotMirrored:
        return True
    except AttributeError:
        return False
    return True
