"""What goes of a cache that is too large: which files, whose rows, in which order, and what never does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from wandbsync.cache.retention import (
    IN_USE,
    SAMPLES,
    SMALL,
    Evict,
    Facts,
    Held,
    Kept,
    Limits,
    Remove,
    Rewrite,
    Segment,
    Short,
    plan,
)
from wandbsync.model import RunRef

NOW = 1_700_000_000.0
DAY = 86_400.0


def ref(name: str) -> RunRef:
    return RunRef("me", "demo", name)


def held(name: str, days: float, **fields: Any) -> Held:
    """A run that was last used so many days ago."""
    return Held(ref(name), 1, NOW - days * DAY, **fields)


def alone(number: int, name: str, size: int = 1000) -> Segment:
    """A segment of one run."""
    return Segment(number, size, 100, {ref(name): 100})


def facts(size: int, **parts: Any) -> Facts:
    return Facts(size, **parts)


def sentences(
    facts: Facts, max_size: int | None = None, *, keep: float | None = None, force: bool = False
) -> list[str]:
    return [str(action) for action in plan(facts, Limits(max_size, keep), now=NOW, force=force)]


OLD_AND_NEW = facts(2000, segments=[alone(1, "old"), alone(2, "new")], runs=[held("new", 1), held("old", 30)])


def test_the_coldest_rows_go_and_no_more_than_is_needed() -> None:
    assert sentences(OLD_AND_NEW, 2000) == []
    old = "remove the rows of me/demo/old, 1.0 kB (not used since 2023-10-15, which its server has)"
    new = "remove the rows of me/demo/new, 1.0 kB (not used since 2023-11-13, which its server has)"
    assert sentences(OLD_AND_NEW, 1999) == sentences(OLD_AND_NEW, 1000) == [old]
    assert sentences(OLD_AND_NEW, 999) == [old, new]
    assert sentences(OLD_AND_NEW) == []


def test_what_can_be_made_again_goes_before_what_can_be_downloaded_and_that_before_rows() -> None:
    everything = replace(
        OLD_AND_NEW,
        size=2600,
        derived=[Kept("derived/a", 100, NOW), Kept("derived/b", 200, NOW - DAY)],
        media=[
            Kept("media/a", 100, NOW - 9 * DAY),
            Kept("media/b", 100, NOW - 2 * DAY),
            Kept("media/c", 100, NOW, False),
        ],
    )
    assert sentences(everything, 2500) == [
        "remove 1 file of derived, 200 B (not used since 2023-11-13, can be made again)"
    ]
    assert sentences(everything, 2250)[1:] == [
        "remove 1 file of media, 100 B (not used since 2023-11-05, can be downloaded again)"
    ]
    assert sentences(everything, 2100)[1:] == [
        "remove 2 files of media, 200 B (not used since 2023-11-12, can be downloaded again)"
    ]
    kinds = [type(action) for action in plan(everything, Limits(1000), now=NOW)]
    assert kinds == [Remove, Remove, Evict, Evict]
    *_, short = sentences(everything, 50)
    assert short == "50 B too much stay: there are no rows to remove"
    assert sentences(everything, 50, force=True)[-1].startswith(
        "remove 1 file of lost media, 100 B (not used since 2023-"
    )


@pytest.mark.parametrize(
    ("why", "fields"),
    [
        ("still running", {"ended": False}),
        ("only here", {"listed": False}),
        ("not all on its server", {"whole": False}),
        ("more machine metrics than a server gives again", {"samples": SAMPLES + 1}),
        ("in use", {"asked_at": NOW - IN_USE / 2}),
    ],
)
def test_rows_that_may_be_nowhere_else_stay(why: str, fields: dict[str, Any]) -> None:
    one = facts(1500, segments=[alone(1, "a")], runs=[held("a", 9, **fields)])
    assert sentences(one, 600) == [f"900 B too much stay: 1.0 kB of 1 run: {why}"]
    forced = sentences(one, 600, force=True)
    if why == "still running":
        assert forced == sentences(one, 600)
    elif why == "in use":
        assert forced == ["remove the rows of me/demo/a, 1.0 kB (not used since 2023-11-05, which its server has)"]
    else:
        assert forced == [f"remove the rows of me/demo/a, 1.0 kB (not used since 2023-11-05, which may be lost: {why})"]
    old = replace(one, runs=[held("a", 99, **fields)])
    assert sentences(old, keep=DAY) == [], "nor by their age"


def test_what_is_elsewhere_goes_before_what_is_not_even_with_force() -> None:
    two = facts(2000, segments=[alone(1, "mine"), alone(2, "b")], runs=[held("mine", 99, listed=False), held("b", 1)])
    assert [action.ref for action in plan(two, Limits(1500), now=NOW, force=True) if isinstance(action, Evict)] == [
        ref("b")
    ]


def test_what_was_not_used_for_long_goes_however_small_the_cache_is() -> None:
    media = [Kept("media/a", 100, NOW - 9 * DAY), Kept("media/b", 100, NOW)]
    assert [str(action)[:28] for action in plan(replace(OLD_AND_NEW, media=media), Limits(keep=8 * DAY), now=NOW)] == [
        "remove 1 file of media, 100 ",
        "remove the rows of me/demo/o",
    ]
    fetched = replace(OLD_AND_NEW, runs=[held("old", 30, came_at=NOW - 7 * DAY), held("new", 20)])
    (one,) = plan(fetched, Limits(keep=8 * DAY), now=NOW)
    assert isinstance(one, Evict) and one.ref == ref("new"), "what came lately has its time"


def test_of_packed_segments_only_what_is_worth_it_is_written_anew() -> None:
    runs = [held(f"r{n:02d}", 50 - n) for n in range(10)]

    def kinds(size: int, limit: int, alive: int = 10) -> list[type]:
        packed = Segment(7, size, 100, {run.ref: 10 for run in runs[:alive]})
        return [type(one) for one in plan(facts(size, segments=[packed], runs=runs), Limits(limit), now=NOW)]

    large = 2 * SMALL
    assert kinds(large, large - 1) == [Evict, Evict, Evict, Rewrite], "a quarter, or nothing is saved"
    assert kinds(1000, 999) == kinds(1000, 900) == [Evict, Rewrite], "what is small is written at once"
    assert kinds(large, 0) == kinds(1000, 0) == [Evict] * 10, "it goes with its last run"
    assert kinds(large, large - 1, alive=5) == kinds(1000, 999, alive=5) == [Rewrite]
    assert kinds(large, large - 1, alive=9) == [Evict, Evict, Rewrite]
    assert kinds(1000, 999, alive=9) == [Evict, Rewrite], "for dead rows alone it is not"
    packed = Segment(7, 1000, 100, {runs[0].ref: 10})
    assert sentences(facts(1000, segments=[packed], runs=runs[:1]), 500) == [
        "rewrite segment 7 without its dead rows, 900 B"
    ]


def test_a_clock_that_jumped_neither_keeps_nor_removes_what_is_new() -> None:
    ahead = replace(OLD_AND_NEW, runs=[held("new", -400, asked_at=NOW + 400 * DAY), held("old", 30)])
    assert [action.ref for action in plan(ahead, Limits(1500), now=NOW) if isinstance(action, Evict)] == [ref("old")]
    assert len(sentences(ahead, 0)) == 2


RUNS = st.lists(
    st.builds(
        Held,
        st.sampled_from([ref(f"r{n}") for n in range(6)]),
        st.just(1),
        st.floats(0, NOW),
        st.none() | st.floats(NOW - 2 * IN_USE, NOW),
        st.floats(0, NOW),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.sampled_from([0, SAMPLES + 1]),
    ),
    unique_by=lambda run: run.ref,
)
FILES = st.lists(
    st.builds(Kept, st.uuids().map(str), st.integers(0, 999), st.floats(0, NOW), st.booleans()), max_size=4
)


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    runs, derived, media = draw(RUNS), draw(FILES), draw(FILES)
    segments = []
    for number in range(draw(st.integers(0, 5)) if runs else 0):
        alive = draw(st.dictionaries(st.sampled_from([run.ref for run in runs]), st.integers(1, 50), min_size=1))
        segments.append(
            Segment(number, draw(st.integers(0, 2000)), sum(alive.values()) + draw(st.integers(0, 50)), alive)
        )
    size = sum(one.bytes for one in [*derived, *media, *segments]) + draw(st.integers(0, 500))
    return Facts(size, derived, media, segments, runs)


@given(any_facts(), st.none() | st.integers(0, 5000), st.none() | st.floats(1, NOW), st.booleans())
def test_what_holds_for_every_plan(facts: Facts, most: int | None, keep: float | None, force: bool) -> None:
    actions = list(plan(facts, Limits(most, keep), now=NOW, force=force))
    runs = {run.ref: run for run in facts.runs}
    gone = [action.ref for action in actions if isinstance(action, Evict)]
    for action in actions:
        if isinstance(action, Evict) and action.only_here is None:
            one = runs[action.ref]
            assert one.listed and one.whole and one.samples <= SAMPLES
    files = [file for action in actions if isinstance(action, Remove) for file in action.files]
    assert len(gone) == len(set(gone)) and len(files) == len({file.path for file in files})
    for one in map(runs.__getitem__, gone):
        assert one.ended
        if not force:
            asked = one.asked_at is not None and NOW - one.asked_at < IN_USE
            assert one.listed and one.whole and one.samples <= SAMPLES and not asked
    if not force:
        assert all(file.elsewhere or file in facts.derived for file in files)
    left = facts.size - sum(file.bytes for file in files)
    for segment in facts.segments:
        alive = sum(rows for one, rows in segment.runs.items() if one not in gone)
        if not alive:
            left -= segment.bytes
        left -= sum(
            action.bytes for action in actions if isinstance(action, Rewrite) and action.segment == segment.number
        )
    short = [action for action in actions if isinstance(action, Short)]
    assert len(short) == (most is not None and left > most)
    if short:
        assert short[0].bytes == left - (most or 0)
    if most is None and keep is None:
        assert not actions
    if keep is None and most is not None and facts.size <= most:
        assert not actions
