"""Servers that answer otherwise than ours: other types for the same thing, other words for an error, less or more."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from mirror import DEMO, Mirror, rows
from wandb_server import Run, Server, front, views

from wandbsync.errors import NotFound, NotPermitted, NotSignedIn, ServerError
from wandbsync.model import SYSTEM, RunRef
from wandbsync.sources.api import queries
from wandbsync.sources.api.record import unix

Twist = Callable[[Any, int, Any], tuple[int, Any]]


def seeded(server: Server) -> list[Run]:
    """Runs of all sorts: half exported, all of it, live, with wide gaps, still running, without a row."""
    events = [{"_timestamp": 1.7e9 + i, "_runtime": i, "system.cpu": i / 2} for i in range(10)]
    files = {"media/images/a.png": b"123", "output.log": b"hello", "z": b""}
    return [
        server.add_run(
            *DEMO, "half", rows(1500), exported=1000, config={"lr": 0.1}, files=files, events=events, console="ab"
        ),
        server.add_run(*DEMO, "exported", rows(700, text="1.5"), exported=700, events=events, console="c"),
        server.add_run(*DEMO, "live", rows(2500, n={"a": 1.5}), console="abcde"),
        server.add_run(*DEMO, "sparse", rows(300, apart=1000), exported=100),
        server.add_run(*DEMO, "few", rows(5), state="running"),
        server.add_run(*DEMO, "none", []),
    ]


def fields(**changes: Callable[[Any], Any]) -> Twist:
    """Answers in which some fields are other than they were."""

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: changed(changes[name](one) if name in changes else one) for name, one in value.items()}
        return [changed(one) for one in value] if isinstance(value, list) else value

    return lambda payload, status, body: (status, changed(json.loads(json.dumps(body))))


def internal(value: Any) -> Twist:
    """What W&B itself keeps in the config."""
    return fields(config=lambda text: json.dumps({**json.loads(text), "_wandb": value}))


def each(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda values: values if values is None else [change(value) for value in values]


ODD = {
    "counts are texts": fields(
        **dict.fromkeys(("historyLineCount", "eventsLineCount", "logLineCount", "runCount", "sizeBytes", "number"), str)
    ),
    "rows are objects": fields(history=each(json.loads), events=each(json.loads), config=json.loads),
    "steps are doubles": fields(
        history=each(lambda row: json.dumps({**json.loads(row), "_step": float(json.loads(row)["_step"])}))
    ),
    "live rows are texts": fields(liveData=each(json.dumps)),
    "the first live row only": fields(liveData=lambda rows: rows[:1]),
    "history keys as text": fields(historyKeys=json.dumps),
    "history keys without types": fields(
        historyKeys=lambda found: {"lastStep": str(found["lastStep"]), "keys": {"text": {}, "loss": None}}
    ),
    "history keys as list": fields(historyKeys=lambda found: {"keys": list(found["keys"])}),
    "lines without numbers": fields(number=lambda _: None, timestamp=lambda _: 1714557600.5),
    "times are numbers": fields(createdAt=lambda _: 1714557600, heartbeatAt=lambda _: 1714557600.25),
    "times to the nanosecond": fields(createdAt=lambda _: "2024-05-01T10:00:00.123456789Z"),
    "empty edges": fields(edges=lambda edges: [*edges, {"node": None}, None]),
    "nothing internal": internal(None),
    "odd internals": internal({"value": {"m": None, "e": [], "branch_point": {"step": 1}, "cli_version": 3}}),
    "odder internals": internal({"value": {"m": [{"1": 2, "6": None, "7": 3}], "e": {"a": None}, "branch_point": "x"}}),
}


@pytest.mark.parametrize("twist", ODD.values(), ids=ODD)
def test_the_same_in_other_dress(server: Server, mirror: Mirror, twist: Twist) -> None:
    runs = seeded(server)
    server.twist = twist
    mirror.quietly()
    mirror.assert_same(*runs)
    assert {run.name: len(mirror.console(run.name)) for run in runs} == {
        "half": 2, "exported": 1, "live": 5, "sparse": 0, "few": 0, "none": 0
    }  # fmt: skip
    mirror.quietly()
    assert mirror.asked == {"Runs": 1}


WORDS = [
    'Cannot query field "{}" on type "Run". Did you mean "historyLineCount"?',
    'Unknown field "{}" on type Run',
    "unrecognized field `{}`",
    "No such field: {}",
    "Field '{}' doesn't exist on type 'Run'",
    'Field "{}" is not defined by type "Run".',
    "Field '{}' of type 'Int' is undefined",
    "Bad Request",  # and not a word what of it
]


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("status", [400, 200, 422])
def test_a_field_that_is_not_known_in_other_words(server: Server, mirror: Mirror, words: str, status: int) -> None:
    run = server.add_run(*DEMO, "r", rows(1500), exported=1000, console="ab")
    late = "eventsLineCount"

    def twist(payload: Any, well: int, body: Any) -> tuple[int, Any]:
        if re.search(rf"\b{late}\b", payload["query"]):
            return status, {"errors": [{"message": words.format(late)}]}
        return well, body

    server.twist = twist
    mirror.quietly()
    mirror.assert_same(run)


def test_what_is_refused_is_not_taken_for_unknown(server: Server, mirror: Mirror) -> None:
    server.add_run(*DEMO, "r", rows(3), files={"a": b"1"})
    body = b'{"errors": [{"message": "unknown error while listing files and events"}], "data": null}'
    server.fail("Run*", status=200, body=body, skip=1)
    mirror.quietly()
    assert mirror.runs()["r"]["complete"]
    with_files = [request for request in server.requests if "fileLimit" in request.variables]
    assert len(with_files) == 2  # with all the rest, and alone


def test_a_server_that_goes_by_the_names_of_operations(server: Server, mirror: Mirror) -> None:
    """It gives no more than the SDK asks under a name, and looks for the run where the SDK puts it."""
    runs = seeded(server)
    answers = {
        "RunParquetHistory": ("runName", {"parquetHistory"}),
        "HistoryPage": ("run", {"history"}),
        "RunFiles": ("name", {"files"}),
        "RunConsoleLogPage": ("runName", {"logLines"}),
        "RunFullHistory": ("name", {"history", "events"}),
        "Run": ("name", set(re.findall(r"\w+", queries.LISTED + queries.RECORD))),
    }

    def twist(payload: Any, status: int, body: Any) -> tuple[int, Any]:
        if payload["operationName"] in answers:
            variable, known = answers[payload["operationName"]]
            assert payload["variables"][variable]
            run = body["data"]["project"]["run"]
            return status, {"data": {"project": {"run": {name: run[name] for name in run if name in known}}}}
        return status, body

    server.twist = twist
    mirror.quietly()
    mirror.assert_same(*runs)
    assert mirror.console("live") == [("stdout", letter) for letter in "abcde"]
    assert len(mirror.cells("half", SYSTEM)) == 30
    assert len(mirror.cache.files(RunRef(*DEMO, "half"))) == 3
    mirror.quietly()
    assert mirror.asked == {"Runs": 1}


def test_cursors_on_the_edges_only(server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_PAGE", 2)
    runs = [server.add_run(*DEMO, f"r{i}", rows(3), files=dict.fromkeys("abcde", b"1")) for i in range(5)]
    server.twist = fields(endCursor=lambda _: None)
    mirror.quietly()
    mirror.assert_same(*runs)
    assert len(mirror.cache.files(RunRef(*DEMO, "r0"))) == 5


def test_more_runs_and_no_way_to_them(server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_PAGE", 2)
    for i in range(5):
        server.add_run(*DEMO, f"r{i}", rows(3))
    server.twist = fields(endCursor=lambda _: None, cursor=lambda _: None)
    with pytest.raises(ServerError, match="does not advance"):
        mirror.sync()


@pytest.mark.parametrize("says", [True, False], ids=["says what is live", "does not say"])
def test_pages_that_count_their_last_step_in(
    server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, says: bool
) -> None:
    runs = seeded(server)
    plain = views.RunView._live
    monkeypatch.setattr(views.RunView, "_live", lambda self, a, b, keys=None: plain(self, a, b + 1, keys))
    if not says:
        server.twist = fields(liveData=lambda _: None)
    mirror.quietly()
    mirror.assert_same(*runs)


def test_rows_that_nobody_counts_are_fetched_and_called_incomplete(server: Server, mirror: Mirror) -> None:
    runs = seeded(server)
    server.twist = fields(historyLineCount=lambda _: None)
    report = mirror.sync()
    assert len(report.problems) == 5 and all("does not count" in problem.reason for problem in report.problems)
    for run in runs:
        assert mirror.run(run.name)["rows"] == len(run.history)
        assert mirror.run(run.name)["complete"] == (run.name == "none")


def test_one_answer_without_sense_does_not_hold_up_the_others(server: Server, mirror: Mirror) -> None:
    runs = [server.add_run(*DEMO, f"r{i}", rows(3)) for i in range(5)]

    def twist(payload: Any, status: int, body: Any) -> tuple[int, Any]:
        if "r2" in payload["variables"].values():
            body = {"data": {"project": {"run": {**body["data"]["project"]["run"], "history": [[1, 2], "{}"]}}}}
        return status, body

    server.twist = twist
    report = mirror.sync()
    assert [problem.subject for problem in report.problems] == ["me/demo/r2"]
    assert "cannot read" in report.problems[0].reason
    mirror.assert_same(*(run for run in runs if run.name != "r2"))
    assert not mirror.run("r2")["complete"]


@pytest.mark.parametrize("kind", ["half of it", "nothing", "json"])
def test_files_cut_short_where_no_length_tells(
    server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    run = server.add_run(*DEMO, "r", rows(1500), exported=1500)
    plain = front.Handler._storage
    cut = iter([True, True])

    def storage(self: Any, path: str, body: bytes) -> Any:
        answer = plain(self, path, body)
        if next(cut, False):
            answer.body = {"half of it": answer.data[:5000], "nothing": b"", "json": b'{"error": "try again"}'}[kind]
        return answer

    monkeypatch.setattr(front.Handler, "_storage", storage)
    mirror.quietly()
    mirror.assert_same(run)


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (404, "run nope not found", NotFound),
        (200, "could not find run me/demo/nope", NotFound),
        (200, "Run 'nope' does not exist", NotFound),
        (200, "permission denied", NotPermitted),
        (200, "user is not logged in", NotSignedIn),
        (200, "internal error", ServerError),
    ],
)
def test_errors_where_others_answer_null(
    server: Server, mirror: Mirror, status: int, message: str, code: type[Exception]
) -> None:
    one = server.add_run(*DEMO, "one", rows(3))
    server.add_run(*DEMO, "nope", rows(3))
    mirror.quietly()
    server.delete(server.run(*DEMO, "nope"))

    def twist(payload: Any, well: int, body: Any) -> tuple[int, Any]:
        if "nope" in payload["variables"].values():
            return status, {"data": {"project": {"run": None}}, "errors": [{"message": message}]}
        return well, body

    server.twist = twist
    if code is NotFound:
        mirror.quietly()
        assert mirror.run("nope")["deleted_at"]
        mirror.assert_same(one)
    elif code is NotSignedIn:
        with pytest.raises(NotSignedIn):
            mirror.sync()
    else:
        assert mirror.sync().partial
        assert not mirror.run("nope")["deleted_at"]
    with pytest.raises(code):
        mirror.api.run(RunRef(*DEMO, "nope"), {"record"})


def test_a_key_that_sees_nothing_is_the_wrong_key(server: Server, mirror: Mirror) -> None:
    server.twist = lambda payload, status, body: (200, {"data": dict.fromkeys(body["data"])})
    with pytest.raises(NotSignedIn, match="does not accept the API key"):
        mirror.sync()


def test_a_server_that_lists_all_runs_whatever_is_asked(
    server: Server, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = views.ProjectView._listing
    monkeypatch.setattr(views.ProjectView, "_listing", lambda self, query, order: plain(self, None, order))
    one, two = (server.add_run(*DEMO, name, rows(3), display_name=f"{name} name") for name in ("one", "two"))
    mirror.quietly("one name")
    mirror.assert_same(one)
    assert set(mirror.runs()) == {"one"}
    mirror.quietly()
    mirror.assert_same(one, two)


def test_an_answer_with_nothing_in_it_is_asked_for_again(server: Server, mirror: Mirror) -> None:
    run = server.add_run(*DEMO, "r", rows(3))
    server.fail("*", status=200, body=b'{"data": null}', times=2)
    mirror.quietly()
    mirror.assert_same(run)


def test_times_in_every_form() -> None:
    texts = ("2024-05-01T10:00:00Z", "2024-05-01 10:00:00", "2024-05-01T12:00:00+02:00", "2024-05-01T12:00:00.0+0200")
    for text in texts:
        assert unix(text) == 1714557600.0, text
    assert unix("2024-05-01T10:00:00.25Z") == unix(1714557600.25) == 1714557600.25
    assert unix("2024-05-01T10:00:00.123456789Z") == 1714557600.123456
    for nonsense in (None, "", "soon", "2024-13-01T10:00:00Z", [], {}):
        assert unix(nonsense) is None, nonsense
