"""The plan for a server: its listing plus what is cached gives these sentences, and carried out it comes to rest."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from wandbsync.model import STATES, Fingerprint, RunRef
from wandbsync.plan.server import (
    POISONED,
    Cached,
    Describe,
    Fetch,
    Gone,
    Remote,
    Wait,
    plan_server,
    retry_after,
    unfinished,
)

RUN = RunRef("me", "demo", "r1")
NOW = 1_700_000_000.0  # 2023-11-14 22:13:20
DAY = 86400.0
LIVE = Fingerprint("running", "2023-11-14T10:00:00Z", "2023-11-14T11:00:00Z", 100, 20, 30, "d")
DONE = replace(LIVE, state="finished")


def cached(seen: Fingerprint | None = LIVE, **fields: Any) -> Cached:
    """A run that was fetched when it looked like `seen`, or never."""
    rows = seen.lines if seen is not None else 0
    return replace(Cached(RUN, seen, seen, rows), **fields)


def sentences(now: Fingerprint | None, known: Cached | None = None, **how: Any) -> list[str]:
    listed = [] if now is None else [Remote(RUN, now)]
    return [str(action) for action in plan_server(listed, {RUN: known} if known else {}, **{"at": NOW, **how})]


# -- a run that only the server has


@pytest.mark.parametrize(
    ("before", "now", "sentence"),
    [
        (LIVE, LIVE, ""),
        (DONE, DONE, ""),
        (LIVE, replace(LIVE, lines=101), "fetch me/demo/r1 (grown)"),
        (LIVE, replace(DONE, lines=120, events=25), "fetch me/demo/r1 (grown)"),
        (DONE, replace(LIVE, lines=120), "fetch me/demo/r1 (grown)"),  # resumed
        (LIVE, DONE, "fetch me/demo/r1 (touched)"),
        (DONE, replace(DONE, state="crashed"), "fetch me/demo/r1 (touched)"),
        (LIVE, replace(LIVE, heartbeat_at="2023-11-14T11:00:30Z"), "fetch me/demo/r1 (touched)"),
        (LIVE, replace(LIVE, events=21), "fetch me/demo/r1 (touched)"),
        (LIVE, replace(LIVE, console=31), "fetch me/demo/r1 (touched)"),
        (LIVE, replace(LIVE, events=None, console=None), ""),  # this listing does not say
        (replace(LIVE, events=None, console=None), LIVE, ""),
        (LIVE, replace(LIVE, lines=99), "fetch me/demo/r1 anew (rewound)"),
        (DONE, replace(DONE, lines=0), "fetch me/demo/r1 anew (rewound)"),
        (LIVE, replace(LIVE, created_at="2023-11-14T12:00:00Z", lines=500), "fetch me/demo/r1 anew (re-used)"),
        (LIVE, replace(LIVE, created_at="2023-11-14T12:00:00Z"), "fetch me/demo/r1 anew (re-used)"),
        (DONE, replace(DONE, created_at="2023-11-14T10:00:00"), ""),  # the same second, spelt as older servers do
        (DONE, replace(DONE, created_at="2023-11-14T10:00:00.123000+00:00"), ""),
        (DONE, replace(DONE, described="e"), "describe me/demo/r1 (edited)"),
        (DONE, replace(DONE, described="e", lines=101), "fetch me/demo/r1 (grown)"),
        (DONE, replace(LIVE, described="e"), "fetch me/demo/r1 (touched)"),
    ],
)
def test_what_has_changed_since_a_run_was_fetched(before: Fingerprint, now: Fingerprint, sentence: str) -> None:
    assert sentences(now, cached(before)) == [sentence] * bool(sentence)


def test_a_new_run_is_fetched() -> None:
    for now in (LIVE, DONE, replace(DONE, lines=0)):
        assert sentences(now) == ["fetch me/demo/r1 (new)"]
    assert sentences(DONE, cached(None, described=DONE)) == ["fetch me/demo/r1 (new)"]  # listed before, not fetched
    again = replace(DONE, created_at="2023-11-14T12:00:00Z")
    assert sentences(again, cached(None, described=DONE)) == ["fetch me/demo/r1 (new)"]
    assert sentences(again, cached(None, described=DONE, rows=9)) == ["fetch me/demo/r1 anew (re-used)"]


def test_what_a_list_command_described_is_still_fetched() -> None:
    grown = replace(LIVE, lines=150)
    assert sentences(grown, cached(LIVE, described=grown)) == ["fetch me/demo/r1 (grown)"]
    edited = replace(DONE, described="e")
    assert sentences(edited, cached(DONE, described=edited)) == []


def test_rows_that_came_while_fetching_are_not_asked_for_again() -> None:
    ahead = cached(LIVE, rows=120)  # 100 when it was listed
    assert sentences(LIVE, ahead) == sentences(DONE, cached(DONE, rows=120)) == []
    assert sentences(replace(LIVE, lines=120), ahead) == ["fetch me/demo/r1 (touched)"]
    assert sentences(replace(DONE, lines=120), ahead) == ["fetch me/demo/r1 (touched)"]
    assert sentences(replace(LIVE, lines=121), ahead) == ["fetch me/demo/r1 (grown)"]
    for now in (replace(LIVE, lines=119), replace(DONE, lines=119), DONE):
        assert sentences(now, ahead) == ["fetch me/demo/r1 anew (rewound)"]
    # A server that counts too few while a run is going on is not asked for all of it every few minutes.
    assert sentences(replace(LIVE, heartbeat_at="2023-11-14T12:00:00Z"), ahead) == ["fetch me/demo/r1 (touched)"]


def test_missing_rows_are_fetched_even_if_nobody_said_so() -> None:
    assert sentences(DONE, cached(DONE, rows=99)) == ["fetch me/demo/r1 (incomplete)"]
    assert sentences(DONE, cached(LIVE, rows=99)) == ["fetch me/demo/r1 (incomplete)"]
    assert sentences(replace(DONE, lines=80), cached(DONE, rows=50)) == ["fetch me/demo/r1 anew (rewound)"]
    assert sentences(replace(DONE, lines=101), cached(LIVE, rows=99)) == ["fetch me/demo/r1 (grown)"]


# -- failures and gaps


def test_the_pace_of_retries() -> None:
    assert [retry_after(failures) for failures in range(9)] == [0, 60, 300, 900, 3600, 14400, DAY, DAY, DAY]


GAPS = cached(DONE, rows=98, incomplete="98 of 100 rows", failures=1, retry_at=NOW + 60)
FAILED = cached(LIVE, tried=DONE, failures=1, retry_at=NOW + 60)
NEW_FAILED = cached(None, tried=DONE, failures=1, retry_at=NOW + 60)


def test_a_gap_is_fetched_again_when_its_time_has_come() -> None:
    assert sentences(DONE, GAPS) == ["leave me/demo/r1 until 2023-11-14 22:14:20Z (incomplete)"]
    for due in ({"at": NOW + 60}, {"at": NOW + 999}, {"insist": True}):
        assert sentences(DONE, GAPS, **due) == ["fetch me/demo/r1 (incomplete)"]
    assert sentences(DONE, replace(GAPS, retry_at=None)) == ["fetch me/demo/r1 (incomplete)"]
    # Where adding what is missing did not help, or too much is there, all is fetched.
    assert sentences(DONE, replace(GAPS, failures=2), insist=True) == ["fetch me/demo/r1 anew (incomplete)"]
    assert sentences(DONE, replace(GAPS, rows=102), insist=True) == ["fetch me/demo/r1 anew (incomplete)"]
    # The right number of rows, and still something is wrong with them.
    assert sentences(DONE, replace(GAPS, rows=100), insist=True) == ["fetch me/demo/r1 (incomplete)"]


def test_what_failed_is_tried_again_when_its_time_has_come() -> None:
    failed = ["describe me/demo/r1 (changed)", "leave me/demo/r1 until 2023-11-14 22:14:20Z (failed)"]
    assert sentences(DONE, FAILED) == failed
    assert sentences(DONE, FAILED, insist=True) == ["fetch me/demo/r1 (failed)"]
    assert sentences(DONE, replace(FAILED, described=DONE)) == failed[1:]
    assert sentences(DONE, NEW_FAILED) == ["describe me/demo/r1 (new)", failed[1]]
    assert sentences(DONE, NEW_FAILED, at=NOW + 60) == ["fetch me/demo/r1 (failed)"]
    assert sentences(DONE, cached(DONE, failures=1), at=NOW) == ["fetch me/demo/r1 (failed)"]
    rewound = replace(FAILED, fetched=replace(LIVE, lines=200), rows=200)  # a retry does what was to be done
    assert sentences(DONE, rewound, insist=True) == ["fetch me/demo/r1 anew (failed)"]


def test_a_change_of_the_run_ends_its_waiting() -> None:
    assert sentences(replace(DONE, lines=101), GAPS) == ["fetch me/demo/r1 (grown)"]
    assert sentences(replace(DONE, state="crashed"), GAPS) == ["fetch me/demo/r1 (incomplete)"]
    assert sentences(replace(DONE, lines=120), FAILED) == ["fetch me/demo/r1 (grown)"]
    assert sentences(replace(DONE, lines=120), NEW_FAILED) == ["fetch me/demo/r1 (new)"]
    other = replace(DONE, created_at="2023-11-14T12:00:00Z")
    assert sentences(other, GAPS) == ["fetch me/demo/r1 anew (re-used)"]
    # A heartbeat is no reason to think that it would work now, nor is a new tag.
    for now in (replace(DONE, heartbeat_at="2023-11-14T11:11:11Z"), replace(DONE, events=99)):
        assert sentences(now, GAPS)[-1].startswith("leave")
    assert sentences(replace(DONE, described="e"), GAPS) == [
        "describe me/demo/r1 (edited)",
        "leave me/demo/r1 until 2023-11-14 22:14:20Z (incomplete)",
    ]


def test_what_was_to_be_fetched_anew_still_is_after_failures() -> None:
    rewound = replace(cached(), tried=replace(LIVE, lines=50), owed=True, failures=1, retry_at=NOW + 60)
    for now in (replace(LIVE, lines=50), LIVE, replace(LIVE, lines=100), replace(DONE, lines=500)):
        assert sentences(now, rewound, at=NOW + 60) == ["fetch me/demo/r1 anew (failed)"]
    assert sentences(LIVE, here("open", 50, owed=True, failures=1)) == ["fetch me/demo/r1 (failed)"]
    assert sentences(replace(LIVE, events=99), cached(owed=True)) == ["fetch me/demo/r1 (touched)"]  # worked since


def test_a_poisoned_run_keeps_its_pace_whatever_it_does() -> None:
    poisoned = replace(FAILED, failures=POISONED, retry_at=NOW + 14400, described=DONE)
    for now in (DONE, replace(DONE, lines=500), replace(DONE, created_at="2023-11-14T12:00:00Z")):
        *about, wait = sentences(now, poisoned)
        assert wait == "leave me/demo/r1 until 2023-11-15 02:13:20Z (failed)"
        assert len(about) == (now is not DONE)  # what can be said without its rows is said
    assert sentences(DONE, poisoned, insist=True) == ["fetch me/demo/r1 (failed)"]
    assert sentences(DONE, poisoned, full=True) == ["fetch me/demo/r1 anew (again)"]


def test_without_a_note_of_the_last_attempt_failures_stay_bounded() -> None:
    unsaid = replace(FAILED, tried=None)
    assert sentences(DONE, unsaid) == ["fetch me/demo/r1 (touched)"]
    assert sentences(DONE, replace(unsaid, failures=POISONED))[-1].startswith("leave")
    assert sentences(DONE, replace(NEW_FAILED, tried=None))[-1].startswith("leave")


def test_a_clock_that_was_wrong_does_not_make_a_run_wait_for_years() -> None:
    assert sentences(DONE, replace(GAPS, retry_at=NOW + 365 * DAY)) == ["fetch me/demo/r1 (incomplete)"]
    assert sentences(DONE, replace(GAPS, retry_at=NOW + DAY))[-1].startswith("leave")


# -- the ways to ask


def test_a_list_command_fetches_no_rows() -> None:
    assert sentences(LIVE, rows=False) == ["describe me/demo/r1 (new)"]
    assert sentences(replace(LIVE, lines=150), cached(), rows=False) == ["describe me/demo/r1 (changed)"]
    assert sentences(replace(LIVE, described="e"), cached(), rows=False) == ["describe me/demo/r1 (edited)"]
    other = replace(LIVE, created_at="2023-11-14T12:00:00Z")
    assert sentences(other, cached(), rows=False) == ["describe me/demo/r1 (re-used)"]
    assert sentences(LIVE, cached(), rows=False) == []
    assert sentences(LIVE, cached(), rows=False, full=True) == ["describe me/demo/r1 (again)"]
    for known in (GAPS, replace(GAPS, failures=9), replace(FAILED, described=DONE)):
        assert sentences(DONE, known, rows=False, insist=True) == []


def test_full_fetches_everything_anew() -> None:
    assert sentences(DONE, cached(DONE), full=True) == ["fetch me/demo/r1 anew (again)"]
    assert sentences(DONE, GAPS, full=True) == ["fetch me/demo/r1 anew (again)"]
    assert sentences(replace(DONE, lines=500), cached(), full=True) == ["fetch me/demo/r1 anew (again)"]


def test_the_newest_runs_come_first_each_once_as_seen_last() -> None:
    refs = [RunRef("me", "demo", name) for name in "abcd"]
    days = ["2023-11-14", "2023-11-16", "2023-11-15", "2023-11-16"]
    looks = [replace(LIVE, created_at=f"{day}T10:00:00Z") for day in days]
    listed = [Remote(ref, now) for ref, now in zip(refs, looks, strict=True)]
    actions = plan_server([*listed, Remote(refs[2], replace(looks[2], lines=7))], {}, at=NOW)
    assert [action.ref.run_id for action in actions] == ["b", "d", "c", "a"]
    assert [action.now.lines for action in actions if isinstance(action, Fetch)] == [100, 100, 7, 100]
    known = {ref: Cached(ref, now, now, now.lines) for ref, now in zip(refs, looks, strict=True)}
    gone = plan_server(listed[:1], {**known, refs[0]: Cached(refs[0])}, at=NOW)
    assert [str(action) for action in gone] == ["fetch me/demo/a (new)"] + [
        f"ask whether me/demo/{name} was deleted" for name in "bdc"
    ]


# -- deletion


def test_a_run_that_is_not_listed_may_be_gone() -> None:
    for known in (cached(), cached(None, described=DONE), GAPS, cached(local="open"), cached(local="ended")):
        for how in ({}, {"rows": False}, {"full": True}):
            assert sentences(None, known, **how) == ["ask whether me/demo/r1 was deleted"]
        assert sentences(None, known, complete_listing=False) == []
        assert sentences(None, replace(known, deleted=True)) == []


def test_a_run_only_known_from_its_log_is_not_gone() -> None:
    for local in ("open", "ended"):
        assert sentences(None, Cached(RUN, rows=5, local=local), full=True) == []


def test_a_deleted_run_that_is_listed_again_is_back() -> None:
    for how in ({}, {"rows": False}):
        for local in (None, "open", "ended"):
            assert sentences(LIVE, cached(deleted=True, local=local), **how) == ["describe me/demo/r1 (back)"]
    assert sentences(replace(LIVE, lines=101), cached(deleted=True)) == ["fetch me/demo/r1 (grown)"]
    other = replace(LIVE, created_at="2023-11-14T12:00:00Z")
    assert sentences(other, cached(deleted=True)) == ["fetch me/demo/r1 anew (re-used)"]
    assert sentences(DONE, replace(GAPS, deleted=True)) == [
        "describe me/demo/r1 (back)",
        "leave me/demo/r1 until 2023-11-14 22:14:20Z (incomplete)",
    ]


# -- one run, two sources


def here(local: str, rows: int, **fields: Any) -> Cached:
    return replace(Cached(RUN, rows=rows, local=local), **fields)


def test_a_run_whose_log_is_being_written_here_is_left_to_its_log() -> None:
    for now, rows, how in product((LIVE, DONE), (100, 101), ({}, {"full": True}, {"rows": False})):
        assert sentences(now, here("open", rows), **how) == []
        assert sentences(now, here("open", rows, fetched=replace(now, lines=500)), **how) == []
    for full in (False, True):
        assert sentences(LIVE, here("open", 99), full=full) == ["fetch me/demo/r1 (elsewhere)"]
    assert sentences(LIVE, here("open", 99), rows=False) == []
    waiting = here("open", 99, tried=LIVE, failures=1, retry_at=NOW + 60)
    assert sentences(LIVE, waiting) == ["leave me/demo/r1 until 2023-11-14 22:14:20Z (failed)"]


def test_a_run_whose_log_has_ended_gets_the_servers_record_once_that_has_all_rows() -> None:
    assert sentences(DONE, here("ended", 100)) == ["describe me/demo/r1 (new)"]
    assert sentences(DONE, here("ended", 100, described=DONE)) == []
    edited = replace(DONE, described="e")
    assert sentences(edited, here("ended", 100, described=DONE)) == ["describe me/demo/r1 (edited)"]
    assert sentences(LIVE, here("ended", 100)) == []  # the server has not heard of the end yet
    for now, how in product((LIVE, DONE), ({}, {"full": True}, {"rows": False})):
        assert sentences(now, here("ended", 101), **how) == []  # the upload is behind


def test_a_run_that_went_on_elsewhere_gets_the_rows_that_are_missing_here() -> None:
    assert sentences(LIVE, here("ended", 60)) == ["fetch me/demo/r1 (elsewhere)"]
    assert sentences(LIVE, here("ended", 60), rows=False) == ["describe me/demo/r1 (new)"]
    waiting = here("ended", 60, tried=LIVE, failures=1, retry_at=NOW + 60)
    assert sentences(LIVE, waiting)[-1] == "leave me/demo/r1 until 2023-11-14 22:14:20Z (failed)"
    assert sentences(replace(LIVE, lines=101), waiting) == ["fetch me/demo/r1 (elsewhere)"]
    there = here("ended", 100, fetched=LIVE, described=LIVE)
    assert sentences(LIVE, there) == []
    assert sentences(replace(LIVE, lines=101), there) == ["fetch me/demo/r1 (elsewhere)"]
    assert sentences(replace(LIVE, heartbeat_at="2023-11-14T12:00:00Z"), there) == ["fetch me/demo/r1 (touched)"]
    assert sentences(DONE, there) == ["fetch me/demo/r1 (touched)"]
    assert sentences(replace(LIVE, described="e"), there) == ["describe me/demo/r1 (edited)"]


def test_rows_of_a_log_are_replaced_only_where_the_server_had_them_all() -> None:
    there = here("ended", 200, fetched=replace(DONE, lines=200), described=replace(DONE, lines=200))
    assert sentences(DONE, there) == ["fetch me/demo/r1 anew (rewound)"]
    assert sentences(LIVE, there) == []  # perhaps the log itself was rewound, and is being uploaded
    assert sentences(DONE, here("ended", 200, described=replace(DONE, lines=200))) == []
    other = replace(DONE, created_at="2023-11-14T12:00:00Z")
    assert sentences(other, there) == ["fetch me/demo/r1 anew (re-used)"]
    assert sentences(replace(other, state="running"), there) == []
    # Never fetched: more rows than the log has are another run's; no more may be the same log, uploaded again.
    assert sentences(other, here("ended", 60, described=DONE)) == ["fetch me/demo/r1 anew (re-used)"]
    assert sentences(other, here("ended", 100, described=DONE)) == ["describe me/demo/r1 (re-used)"]
    assert sentences(other, here("ended", 101, described=DONE)) == []
    assert sentences(DONE, here("ended", 100, described=DONE), full=True) == ["fetch me/demo/r1 anew (again)"]
    assert sentences(LIVE, here("ended", 60), full=True) == ["fetch me/demo/r1 (elsewhere)"]
    goes_on = here("ended", 100, fetched=LIVE, described=LIVE)
    assert sentences(LIVE, goes_on, full=True) == ["describe me/demo/r1 (again)"]


# -- a run whose rows were removed to save space


def evicted(seen: Fingerprint | None = DONE, **fields: Any) -> Cached:
    return replace(cached(seen, evicted=True, incomplete="removed"), **fields)


def test_rows_that_were_removed_are_fetched_only_when_they_are_asked_for() -> None:
    assert sentences(DONE, evicted()) == []
    by_name = ["fetch me/demo/r1 anew (removed)"]
    assert sentences(DONE, evicted(), insist=True) == sentences(DONE, evicted(), full=True) == by_name
    assert sentences(DONE, evicted(), insist=True, rows=False) == []
    assert unfinished([evicted()]) == []
    failed = evicted(failures=2, retry_at=NOW + DAY, tried=DONE, owed=True)
    assert sentences(DONE, failed) == [], "nobody waits for it"
    assert sentences(DONE, failed, insist=True) == ["fetch me/demo/r1 anew (failed)"]


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (replace(DONE, heartbeat_at="2023-11-14T12:00:00Z"), "describe me/demo/r1 (changed)"),
        (replace(DONE, events=21, console=31), "describe me/demo/r1 (changed)"),
        (replace(DONE, described="e"), "describe me/demo/r1 (edited)"),
        (LIVE, "describe me/demo/r1 (changed)"),
        (replace(LIVE, lines=101), "fetch me/demo/r1 anew (grown)"),
        (replace(DONE, lines=99), "fetch me/demo/r1 anew (rewound)"),
        (replace(DONE, created_at="2023-11-14T12:00:00Z"), "fetch me/demo/r1 anew (re-used)"),
    ],
)
def test_a_run_that_went_on_after_its_rows_were_removed(now: Fingerprint, sentence: str) -> None:
    assert sentences(now, evicted()) == [sentence]
    if "describe" in sentence:
        assert sentences(now, evicted(described=now)) == [], "said once"


def test_removed_rows_of_a_run_that_was_logged_here() -> None:
    """Its server may be behind what the log had."""
    there = evicted(local="ended")
    assert sentences(DONE, there) == []
    assert sentences(DONE, there, insist=True) == ["fetch me/demo/r1 anew (removed)"]
    assert sentences(replace(DONE, lines=99), there) == []
    assert sentences(replace(DONE, lines=99), there, insist=True) == ["fetch me/demo/r1 anew (removed)"], (
        "better than none"
    )
    assert sentences(replace(LIVE, lines=101), there) == ["fetch me/demo/r1 anew (grown)"]
    for now in (DONE, replace(LIVE, lines=101)):
        assert sentences(now, evicted(local="open"), insist=True) == [], "the log goes on"


# -- whatever is listed and cached

FINGERPRINTS = st.builds(
    Fingerprint,
    state=st.sampled_from(STATES),
    created_at=st.sampled_from(["2023-11-14T10:00:00Z", "2023-11-14T12:00:00Z"]),
    heartbeat_at=st.sampled_from([None, "2023-11-14T12:30:00Z"]),
    lines=st.integers(0, 4),
    events=st.none() | st.integers(0, 2),
    console=st.none() | st.integers(0, 2),
    described=st.sampled_from("de"),
)


@st.composite
def looks(draw: st.DrawFn) -> tuple[Fingerprint | None, Cached | None]:
    """A run as listed and as cached; often it looked the same before."""
    some = st.none() | st.sampled_from(draw(st.lists(FINGERPRINTS, min_size=1, max_size=3)))
    known = st.builds(
        Cached,
        st.just(RUN),
        described=some,
        fetched=some,
        rows=st.integers(0, 4),
        local=st.sampled_from([None, "open", "ended"]),
        incomplete=st.sampled_from([None, "gaps"]),
        failures=st.just(0) | st.integers(0, 7),
        retry_at=st.none() | st.sampled_from([NOW - 1, NOW, NOW + 1, NOW + DAY, NOW + DAY + 1]),
        deleted=st.booleans(),
        tried=some,
        owed=st.booleans(),
        evicted=st.booleans(),
    )
    return draw(some), draw(st.none() | known)


HOW = st.fixed_dictionaries(
    {"full": st.booleans(), "rows": st.booleans(), "insist": st.booleans(), "complete_listing": st.booleans()}
)


@settings(max_examples=500)
@given(looks(), HOW)
def test_what_holds_for_every_plan(look: tuple[Fingerprint | None, Cached | None], how: dict[str, bool]) -> None:
    now, known = look
    listed = [] if now is None else [Remote(RUN, now)]
    actions = plan_server(listed, {RUN: known} if known else {}, at=NOW, **how)
    kinds = [type(action) for action in actions]
    assert kinds in ([], [Fetch], [Describe], [Describe, Wait], [Wait], [Gone])
    known = known or Cached(RUN)
    if now is None:
        from_server = known.described is not None or known.fetched is not None
        assert (kinds == [Gone]) == (from_server and not known.deleted and how["complete_listing"])
        return
    assert Gone not in kinds
    if not how["rows"]:
        assert Fetch not in kinds and Wait not in kinds
    if how["insist"] or how["full"]:
        assert Wait not in kinds
    waits_for_log = known.evicted and known.local == "open"
    if how["rows"] and now.lines > known.rows and not waits_for_log:  # what is missing is got, or it is said when
        assert Fetch in kinds or Wait in kinds
    if known.deleted:
        assert Fetch in kinds or Describe in kinds
    for action in actions:
        if isinstance(action, Wait):
            assert NOW < action.until <= NOW + DAY and action.until == known.retry_at
        if isinstance(action, Fetch | Describe):
            assert action.now == now
        if isinstance(action, Fetch) and known.evicted:
            assert action.whole, "there are no rows to add to"
        elif isinstance(action, Fetch) and known.local is not None:
            if action.whole:
                assert known.local == "ended" and (known.fetched or known.owed or now.lines >= known.rows)
            else:
                assert now.lines > known.rows or (known.fetched and now.lines == known.rows)
        if isinstance(action, Fetch) and action.reason == "touched":
            assert now.lines <= known.rows and not action.whole and (known.local or known.incomplete is None)
    at_rest = known.fetched == known.described == now and now.lines <= known.rows
    if known.evicted and (how["insist"] or now.lines != known.rows):
        at_rest = False
    if at_rest and known.incomplete is None and not known.failures and not known.deleted and not how["full"]:
        assert actions == []
    assert actions == plan_server(listed, {RUN: known}, at=NOW, **how)


@dataclass
class Upstream:
    """A run as it is on the server: a row for each step."""

    born: int
    rows: dict[int, int] = field(default_factory=dict)
    state: str = "running"
    beat: int = 0
    tag: int = 0
    poison: bool = False

    def look(self) -> Fingerprint:
        return Fingerprint(
            self.state, f"2023-11-14T10:{self.born // 60:02}:{self.born % 60:02}Z", str(self.beat), len(self.rows),
            described=str(self.tag),
        )  # fmt: skip


class Mirroring(RuleBasedStateMachine):
    """Runs come, grow, end, rewind, go and come back between passes and during them; fetching fails now and then."""

    @initialize()
    def start(self) -> None:
        self.clock, self.count = 0, 0
        self.server: dict[RunRef, Upstream] = {}
        self.mirror: dict[RunRef, Cached] = {}
        self.have: dict[RunRef, dict[int, int]] = {}
        self.logs: dict[RunRef, dict[int, int]] = {}  # what was read of logs here
        self.attempts: dict[RunRef, list[float]] = {}
        self.seen_rows: dict[RunRef, list[int]] = {}

    def tick(self) -> int:
        self.count += 1
        return self.count

    def some(self, number: int) -> RunRef | None:
        refs = sorted(self.server)
        return refs[number % len(refs)] if refs else None

    @rule(name=st.integers(0, 3), steps=st.integers(0, 3))
    def create(self, name: int, steps: int) -> None:
        ref = RunRef("me", "demo", f"r{name}")
        if ref not in self.server and not (ref in self.mirror and self.mirror[ref].local):
            self.server[ref] = Upstream(self.tick(), {step: self.tick() for step in range(steps)})

    @rule(name=st.integers(4, 5), steps=st.integers(1, 4), uploaded=st.booleans())
    def log_here(self, name: int, steps: int, uploaded: bool) -> None:
        """A run that is begun, or goes on, on this machine; the local source reads its log at once."""
        ref = RunRef("me", "demo", f"r{name}")
        log = self.logs.setdefault(ref, {})
        if self.have.get(ref, log) != log or not (
            ref not in self.server or self.server[ref].rows.items() <= log.items()
        ):
            return  # it went on elsewhere
        log |= {len(log) + i: self.tick() for i in range(steps)}
        self.have[ref] = dict(log)
        known = self.mirror.get(ref, Cached(ref))
        self.mirror[ref] = replace(known, rows=len(log), local="open")
        if uploaded:
            run = self.server.setdefault(ref, Upstream(self.tick()))
            run.rows, run.state, run.beat = dict(log), "running", self.tick()

    @rule(name=st.integers(4, 5), uploaded=st.booleans())
    def end_here(self, name: int, uploaded: bool) -> None:
        ref = RunRef("me", "demo", f"r{name}")
        if ref in self.have and self.have[ref] == self.logs[ref]:
            self.mirror[ref] = replace(self.mirror[ref], local="ended")
            if uploaded:
                run = self.server.setdefault(ref, Upstream(self.tick()))
                run.rows, run.state = dict(self.logs[ref]), "finished"

    @rule(number=st.integers(0, 9), steps=st.integers(1, 3))
    def grow(self, number: int, steps: int) -> None:
        ref = self.some(number)
        if ref and not (self.local(ref) == "open" or self.behind(ref)):
            run = self.server[ref]
            run.rows |= {max(run.rows, default=-1) + 1 + i: self.tick() for i in range(steps)}
            run.beat, run.state = self.tick(), "running"

    def local(self, ref: RunRef) -> str | None:
        return self.mirror[ref].local if ref in self.mirror else None

    def behind(self, ref: RunRef) -> bool:
        """Nothing goes on elsewhere from rows that are not uploaded."""
        return self.local(ref) is not None and self.server[ref].rows != self.have[ref]

    @rule(number=st.integers(0, 9), state=st.sampled_from(["finished", "crashed", "running"]))
    def turn(self, number: int, state: str) -> None:
        if ref := self.some(number):
            self.server[ref].state, self.server[ref].beat = state, self.tick()

    @rule(number=st.integers(0, 9))
    def edit(self, number: int) -> None:
        if ref := self.some(number):
            self.server[ref].tag = self.tick()

    @rule(number=st.integers(0, 9), last=st.integers(0, 5))
    def rewind(self, number: int, last: int) -> None:
        ref = self.some(number)
        known = self.mirror.get(ref, Cached(ref)) if ref else None
        if known and known.fetched and last == known.fetched.lines < known.rows:
            return  # while it runs, this looks like a count that is behind
        if ref and known and not known.local and not known.failures and last < len(self.server[ref].rows):
            run = self.server[ref]
            run.rows = {step: row for step, row in run.rows.items() if step < last}
            run.beat = self.tick()
            self.go()  # what is written again at once cannot be told from the counts

    @rule(number=st.integers(0, 9))
    def delete(self, number: int) -> None:
        ref = self.some(number)
        if ref and not self.local(ref):
            del self.server[ref]

    @rule(number=st.integers(0, 9), poison=st.booleans())
    def poison(self, number: int, poison: bool) -> None:
        if ref := self.some(number):
            self.server[ref].poison = poison

    @rule(number=st.integers(0, 9))
    def evict(self, number: int) -> None:
        """Remove the rows of a run that is all on its server, as far as anybody knows."""
        ref = self.some(number)
        known = self.mirror.get(ref) if ref else None
        seen = (known.fetched or known.described) if known else None
        if not (ref and known and seen) or known.local == "open" or known.incomplete or known.failures or known.deleted:
            return
        if seen.ended and seen.lines == known.rows:
            self.mirror[ref] = replace(known, evicted=True, incomplete="removed")
            self.have[ref] = {}

    @rule(
        seconds=st.sampled_from([1, 59, 61, 301, 3601, 90_000]),
        failing=st.sets(st.integers(0, 5)),
        losing=st.sets(st.integers(0, 5)),
        growing=st.sets(st.integers(0, 3)),
        insist=st.sampled_from([False, False, True]),
    )
    def go(
        self, failing: Any = (), losing: Any = (), growing: Any = (), seconds: int = 1, insist: bool = False
    ) -> None:
        """A pass."""
        self.clock += seconds
        for action in plan_server(self.listing(), self.mirror, at=NOW + self.clock, insist=insist):
            ref, number = action.ref, int(action.ref.run_id[1:])
            known = self.mirror.get(ref, Cached(ref))
            if isinstance(action, Gone):
                assert ref not in self.server
                self.mirror[ref] = replace(known, deleted=True)
            elif isinstance(action, Describe):
                self.mirror[ref] = replace(known, described=action.now, deleted=False)
            elif isinstance(action, Fetch):
                if not insist:
                    self.attempts.setdefault(ref, []).append(self.clock)
                run = self.server[ref]
                failures = known.failures + 1
                later = NOW + self.clock + retry_after(failures)
                if number in failing or run.poison:
                    owed = known.owed or action.whole
                    self.mirror[ref] = replace(known, tried=action.now, failures=failures, retry_at=later, owed=owed)
                    continue
                if number in growing and run.state == "running":
                    run.rows[max(run.rows, default=-1) + 1] = self.tick()
                    run.beat = self.tick()
                had = {} if action.whole else self.have.get(ref, {})
                got = {step: row for step, row in run.rows.items() if number not in losing or step % 2}
                self.have[ref] = {**got, **had}
                noted = Cached(ref, action.now, action.now, len(self.have[ref]), known.local)
                if len(self.have[ref]) != len(run.rows):
                    noted = replace(noted, incomplete="gaps", failures=failures, retry_at=later)
                self.mirror[ref] = noted

    def listing(self) -> list[Remote]:
        return [Remote(ref, run.look()) for ref, run in self.server.items()]

    @invariant()
    def poison_is_tried_in_bounds(self) -> None:
        for ref, times in self.attempts.items():
            run = self.server.get(ref)
            if run and run.poison and self.mirror[ref].failures > POISONED:
                assert times[-1] - times[-2] >= retry_after(POISONED)

    def teardown(self) -> None:
        if not hasattr(self, "server"):
            return
        for run in self.server.values():
            run.poison, run.state = False, "finished"
        for _ in range(3):  # where gaps met a rewind, it takes a second look to see that all must be fetched
            self.go(seconds=200_000)
        removed = {ref for ref, known in self.mirror.items() if known.evicted}
        assert not any(self.have[ref] for ref in removed), "or they would be removed and fetched for ever"
        rest = plan_server(self.listing(), self.mirror, at=NOW + self.clock)
        assert rest == [], [str(action) for action in rest]
        self.go(insist=True)
        assert not any(self.mirror[ref].evicted for ref in removed if ref in self.server)
        for ref, run in self.server.items():
            if self.mirror[ref].local is None:
                assert self.have[ref] == run.rows
            else:
                assert {**self.have[ref], **run.rows} == self.have[ref]
            assert not self.mirror[ref].deleted
        assert not unfinished(known for known in self.mirror.values() if not known.local)
        for ref, known in self.mirror.items():
            assert ref in self.server or known.deleted or known.described is None


Mirroring.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestMirroring = Mirroring.TestCase


def test_ten_thousand_unchanged_runs_are_planned_at_once() -> None:
    refs = [RunRef("me", "demo", f"r{i}") for i in range(10_000)]
    known = {ref: Cached(ref, DONE, DONE, DONE.lines) for ref in refs}
    started = time.process_time()  # 0.1 s; every run looked up among all others would take minutes
    assert plan_server([Remote(ref, DONE) for ref in refs], known, at=NOW) == []
    assert time.process_time() - started < 2


def test_a_filtered_listing_asks_for_the_runs_that_are_not_at_rest() -> None:
    at_rest = cached(DONE)
    assert unfinished([at_rest, cached(None, described=LIVE), here("open", 5), cached(LIVE, deleted=True)]) == []
    gaps = replace(at_rest, incomplete="gaps")
    for known in (cached(LIVE), cached(DONE, rows=99), gaps, replace(at_rest, failures=1)):
        assert unfinished([known]) == [RUN]
