"""When the daemon looks at a project next: never late, never too often, whatever the clock does. Pure."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wandbsync.model import Pace
from wandbsync.plan import schedule
from wandbsync.plan.schedule import (
    LAST_PROBE,
    LAST_RETRY,
    Look,
    Past,
    came_to_its_end,
    failed,
    interval,
    next_look,
    pace_of,
    probe_after,
    put_off,
    retry_after,
)

PACE = Pace(poll=60.0, settled=1800.0, sweep=21600.0)
NOW = 1_800_000_000.0
DONE = Past(looked_at=NOW, fresh_at=NOW, swept_at=NOW)

seconds = st.floats(1.0, 1e5)
paces = st.builds(Pace, seconds, seconds, seconds)
times = st.none() | st.floats(NOW - 1e6, NOW + 1e6)
pasts = st.builds(
    Past,
    looked_at=times,
    fresh_at=times,
    swept_at=times,
    running=st.integers(0, 5),
    quiet=st.integers(0, 10_000),
    failures=st.integers(0, 10_000),
    more=st.booleans(),
    until=times,
)


def look_after(past: Past, *, now: float = NOW) -> Look:
    return next_look(past, PACE, now=now)


# -- one look after another


@pytest.mark.parametrize(
    ("past", "look"),
    [
        (Past(), "sweep at 1800000000"),  # never seen: at once, all of it
        (Past(fresh_at=NOW - 60, swept_at=NOW - 60), "poll at 1800000000"),  # synced by hand just now
        (Past(fresh_at=NOW - 30000, swept_at=NOW - 30000), "sweep at 1800000000"),
        (Past(fresh_at=NOW + 9000, swept_at=NOW + 9000), "sweep at 1800000000"),  # by a clock that was ahead
        (DONE, "poll at 1800000060"),
        (replace(DONE, running=1, quiet=9), "poll at 1800000060"),
        (replace(DONE, quiet=1), "poll at 1800000120"),
        (replace(DONE, quiet=4), "poll at 1800000960"),
        (replace(DONE, quiet=5), "poll at 1800001800"),
        (replace(DONE, quiet=10_000), "poll at 1800001800"),
        (replace(DONE, more=True), "poll at 1800000000"),
        (replace(DONE, more=True, swept_at=None), "sweep at 1800000000"),
        (replace(DONE, failures=1), "poll at 1800000030"),
        (replace(DONE, failures=2, more=True), "poll at 1800000060"),
        (replace(DONE, failures=50), "poll at 1800003600"),
        (replace(DONE, until=NOW + 300), "poll at 1800000300"),
        (replace(DONE, until=NOW + 5), "poll at 1800000060"),
        (replace(DONE, until=NOW - 5, more=True), "poll at 1800000000"),
        (replace(DONE, swept_at=NOW - 21540), "sweep at 1800000060"),
        (replace(DONE, swept_at=NOW - 21539), "poll at 1800000060"),
        (replace(DONE, swept_at=NOW + 9000), "sweep at 1800000060"),  # the clock was set back since
        (replace(DONE, looked_at=NOW + 9000), "poll at 1800000060"),
        (replace(DONE, looked_at=NOW - 9000), "poll at 1800000000"),  # it was asleep
    ],
)
def test_the_next_look(past: Past, look: str) -> None:
    assert str(look_after(past)) == look


def test_settled_is_no_shorter_than_poll() -> None:
    assert interval(DONE, Pace(poll=60, settled=5, sweep=1)) == 60


def test_what_a_look_leaves_behind() -> None:
    past = came_to_its_end(Past(), began=NOW, at=NOW, sweep=True, more=False, news=True, running=2)
    assert past == Past(NOW, NOW, NOW, running=2)
    past = came_to_its_end(past, began=NOW + 60, at=NOW + 60, sweep=False, more=False, news=False, running=0)
    assert past == Past(NOW + 60, NOW + 60, NOW, quiet=1)
    past = failed(past, at=NOW + 120, error="no")
    assert past == Past(NOW + 120, NOW + 60, NOW, quiet=1, failures=1, error="no")
    past = put_off(past, at=NOW + 150, until=NOW + 200)
    assert (past.failures, past.fresh_at, past.until) == (1, NOW + 60, NOW + 200)
    past = came_to_its_end(past, began=NOW + 200, at=NOW + 200, sweep=True, more=True, news=True, running=1)
    assert past == Past(NOW + 200, NOW + 60, NOW, running=1, more=True)  # not fresh, and not swept
    past = came_to_its_end(past, began=NOW + 210, at=NOW + 210, sweep=True, more=False, news=False, running=0)
    assert past == Past(NOW + 210, NOW + 210, NOW + 210, quiet=1)


def test_the_first_pace_that_fits_counts() -> None:
    own = [("me/vision", Pace(1)), ("me/*", Pace(2)), ("you/x[1]", Pace(3))]
    names = ("me/vision", "me/x", "you/x1", "you/x[1]", "you/y")
    assert [pace_of(name, PACE, own).poll for name in names] == [1, 2, 3, 3, 60]


# -- whatever came before


@given(pasts, paces, st.floats(NOW - 1e6, NOW + 1e6))
def test_no_look_is_in_the_past_or_later_than_its_wait(past: Past, pace: Pace, now: float) -> None:
    look = next_look(past, pace, now=now)
    wait = max(interval(past, pace), retry_after(past.failures))
    if past.until is not None and past.looked_at is not None:
        wait = max(wait, past.until - past.looked_at)
    assert now <= look.at <= now + wait


@given(pasts, paces, st.floats(NOW - 1e6, NOW + 1e6))
def test_the_clock_may_be_set_back_or_ahead(past: Past, pace: Pace, by: float) -> None:
    """A look that comes to its end is followed by another one interval later, by the new clock."""
    done = came_to_its_end(past, began=NOW, at=NOW, sweep=True, more=False, news=True, running=1)
    assert next_look(done, pace, now=by).at <= by + pace.poll
    assert next_look(done, pace, now=by).at >= by


@given(pasts, paces, st.floats(0, 1e6))
def test_a_sweep_is_due_when_it_is(past: Past, pace: Pace, later: float) -> None:
    look = next_look(past, pace, now=NOW + later)
    due = past.swept_at is None or not 0 <= look.at - past.swept_at < pace.sweep
    assert look.sweep == due


@given(st.integers(0, 10**6))
def test_back_off_is_bounded_and_never_shrinks(times: int) -> None:
    assert 0 <= retry_after(times) <= retry_after(times + 1) <= LAST_RETRY
    assert 0 < probe_after(times) <= probe_after(times + 1) <= LAST_PROBE
    assert retry_after(times + 10) == LAST_RETRY or times == 0
    assert retry_after(11) == LAST_RETRY and probe_after(7) == LAST_PROBE


@given(st.lists(st.sampled_from(["news", "quiet", "fails", "put off", "more"]), max_size=30), paces)
def test_a_project_is_never_forgotten(events: list[str], pace: Pace) -> None:
    """However its looks went, it is looked at again within the longest of its waits, and swept in time."""
    past, now = Past(), NOW
    longest = max(pace.poll, pace.settled, LAST_RETRY, 120.0)
    for event in events:
        look = next_look(past, pace, now=now)
        assert now <= look.at <= now + longest
        now = look.at + 1
        if event == "fails":
            past = failed(past, at=now, error="no")
        elif event == "put off":
            past = put_off(past, at=now, until=now + 120)
        else:
            past = came_to_its_end(
                past, began=now, at=now, sweep=look.sweep, more=event == "more", news=event != "quiet", running=0
            )
            assert event == "more" or now - (past.swept_at or 0) < pace.sweep + longest


def test_a_large_project_takes_turns_with_the_others() -> None:
    """Whoever comes first is served first; `more` means: at once, but after whoever waits."""
    waits = {"large": Past(more=True), **{f"small {i}": Past() for i in range(5)}}
    queue, now, done = [(NOW, name) for name in waits], NOW, []
    for order in itertools.count():
        if order == 60:
            break
        queue.sort(key=lambda one: one[0])  # stable: of two due at once the one that waits longer
        at, name = queue.pop(0)
        now = max(now, at) + 1.0
        waits[name] = came_to_its_end(
            waits[name], began=now, at=now, sweep=False, more=name == "large", news=True, running=1
        )
        queue.append((next_look(waits[name], Pace(poll=1.0), now=now).at, name))
        done.append(name)
    counts = {name: done.count(name) for name in waits}
    assert set(counts.values()) == {10}, counts
    assert schedule.interval(waits["large"], PACE) == PACE.poll
