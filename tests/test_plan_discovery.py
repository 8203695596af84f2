"""Patterns for projects, and the filter for runs: in the server's words, and as the server understands them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wandb_server import Server
from wandb_server.filters import matches

from wandbsync.errors import UsageError
from wandbsync.plan.discovery import RunFilter, wanted

NOW = 1_700_000_000.0  # 2023-11-14 22:13:20
DAY = 86400.0
PROJECTS = ["me/demo", "me/vision-1", "me/Vision-2", "team/demo", "team/scratch", "me/[old]", "me/demo"]


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        ((), (), PROJECTS[:-1]),
        (["me/demo"], (), ["me/demo"]),
        (["me/*"], (), ["me/demo", "me/vision-1", "me/Vision-2", "me/[old]"]),
        (["me/vision-*"], (), ["me/vision-1"]),  # case matters
        (["*/[vV]ision-?"], (), ["me/vision-1", "me/Vision-2"]),
        (["demo"], (), ["me/demo", "team/demo"]),  # in any entity
        (["me"], (), []),
        (["me/[old]"], (), ["me/[old]"]),
        ((), ["scratch", "me/*"], ["team/demo"]),
        (["team/*", "me/demo"], ["*/demo"], ["team/scratch"]),
        (["ME/*"], (), []),
    ],
)
def test_wanted_projects(include: list[str], exclude: list[str], names: list[str]) -> None:
    assert wanted(PROJECTS, include, exclude) == names


@given(
    st.lists(st.sampled_from(PROJECTS)),
    *[st.lists(st.text("medo/*?[]-", max_size=7) | st.sampled_from(PROJECTS), max_size=3)] * 2,
)
def test_wanted_projects_are_listed_ones_each_once(names: list[str], include: list[str], exclude: list[str]) -> None:
    found = wanted(names, include, exclude)
    assert set(found) <= set(names) and len(found) == len(set(found)) and not set(found) & set(exclude)
    assert set(names) & set(include) - set(found) <= set(wanted(names, exclude))
    if not include and not exclude:
        assert found == list(dict.fromkeys(names))


def test_a_filter_in_the_servers_words() -> None:
    assert RunFilter().query(at=NOW) == RunFilter().query(at=NOW, also=["r9"]) == {} and not RunFilter()
    everything = RunFilter(("finished", "crashed"), ("best",), newer_than=DAY)
    assert everything.query(at=NOW) == {
        "state": {"$in": ["finished", "crashed"]},
        "tags": {"$in": ["best"]},
        "createdAt": {"$gte": "2023-11-13T22:13:20Z"},
    }
    assert RunFilter(newer_than=9.5).query(at=NOW) == {"createdAt": {"$gte": "2023-11-14T22:13:10Z"}}
    assert json.loads(RunFilter(tags=("a",)).text(at=NOW, also={"r2", "r1"})) == {
        "$or": [{"tags": {"$in": ["a"]}}, {"name": {"$in": ["r1", "r2"]}}]
    }
    assert RunFilter(newer_than=1e12).query(at=NOW) == {"createdAt": {"$gte": "1970-01-01T00:00:00Z"}}
    late = json.loads(RunFilter().changing(at=NOW, since=1e12, also=[]))
    assert late["$or"][1] == {"createdAt": {"$gte": "9999-12-31T23:59:59Z"}}
    for one in (RunFilter(states=("running",)), RunFilter(tags=("a",)), RunFilter(newer_than=0), everything):
        assert one


@pytest.mark.parametrize(
    "wrong",
    [
        {"states": ("done",)},
        {"tags": ("",)},
        {"newer_than": -1.0},
        {"newer_than": float("nan")},
    ],
)
def test_a_filter_that_fits_no_run_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RunFilter(**wrong)


@pytest.fixture(scope="module")
def mixed_runs() -> Iterator[Mapping[str, Any]]:
    kinds = product(("finished", "crashed", "failed"), (1, 2, 3), ((), ("a",), ("a", "b"), ("c",)))
    with Server() as server:
        runs = [
            server.add_run(
                *("me", "demo", f"{state}{day}{''.join(tags)}"),
                state=state,
                tags=list(tags),
                created_at=datetime(2023, 11, day, tzinfo=timezone.utc),
            )
            for state, day, tags in kinds
        ]
        yield {run.name: run for run in runs}


@given(
    states=st.sets(st.sampled_from(["finished", "crashed", "running"])),
    tags=st.sets(st.sampled_from("abd")),
    newer_than=st.none() | st.sampled_from([0.0, DAY - 1, DAY, 1.5 * DAY]),
    also=st.sets(st.sampled_from(["failed1", "crashed2a", "gone"])),
)
def test_the_server_reads_a_filter_as_it_is_meant(
    mixed_runs: Mapping[str, Any],
    states: set[str],
    tags: set[str],
    newer_than: float | None,
    also: set[str],
) -> None:
    at = 1698969600.0  # November 3rd
    one = RunFilter(tuple(states), tuple(tags), newer_than)
    query = json.loads(one.text(at=at, also=also))
    for name, run in mixed_runs.items():
        made = run.created_at.timestamp()
        fits = (
            (not states or run.declared in states)
            and (not tags or bool(tags & set(run.tags)))
            and (newer_than is None or made >= at - newer_than)
        )
        assert matches(run, query) == (fits or name in also)
