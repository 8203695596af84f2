"""The plan: what lies there plus what is cached gives these sentences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from wandbsync.model import RunRef
from wandbsync.plan.local import Action, Copy, Cut, Forget, Known, Listed, Look, Read, Rename, plan

RUN = RunRef("me", "demo", "r1")


def log(
    path: str = "a",
    size: int = 100,
    *,
    ref: RunRef = RUN,
    key: str = "",
    at: float = 1.0,
    rewinds_to: int | None = None,
    touch: str = "",
) -> Listed:
    return Listed(path, f"{path}:{size}{touch}", size, ref, key or path, at, rewinds_to)


def read(one: Listed, *, status: str = "ended", offset: int | None = None, ref: RunRef | None = None) -> Known:
    """The log as the cache knows it after it was read."""
    return Known(one.path, one.signature, ref or one.ref, one.log_key, one.size, one.size if offset is None else offset,
                 one.started_at, one.rewinds_to, status)  # fmt: skip


def sentences(listed: list[Listed], known: list[Known] = [], last: int | None = None, **how: Any) -> list[str]:  # noqa: B006
    steps = {one.ref: last for one in known}
    return [str(action) for action in plan(listed, known, steps, **how)]


def test_a_new_log_is_read_whole() -> None:
    assert sentences([log()]) == ["read me/demo/r1 from byte 0 of a (new)"]


def test_an_unchanged_log_is_left_alone() -> None:
    for status in ("ended", "crashed"):
        assert sentences([log()], [read(log(), status=status)]) == []


def test_an_unchanged_open_log_is_looked_after() -> None:
    assert sentences([log()], [read(log(), status="open")]) == ["look whether me/demo/r1 still runs"]


def test_a_grown_log_is_read_on() -> None:
    for status in ("open", "ended", "crashed"):
        assert sentences([log(size=1500)], [read(log(), status=status, offset=97)]) == [
            "read me/demo/r1 from byte 97 of a (grown)"
        ]


def test_a_log_whose_surroundings_changed_is_looked_into() -> None:
    assert sentences([log(touch="+files")], [read(log())]) == ["read me/demo/r1 from byte 100 of a (touched)"]


def test_what_was_not_read_to_the_end_is_read_on() -> None:
    cut_short = replace(read(log(), offset=40), signature="a:100:partial")
    assert sentences([log()], [cut_short]) == ["read me/demo/r1 from byte 40 of a (unfinished)"]


def test_a_moved_log_is_read_on_where_it_is_now() -> None:
    (action,) = plan([log("b", key="a")], [read(log("a"))], {RUN: 9})
    assert str(action) == "read me/demo/r1 from byte 100 of b (moved)"
    assert isinstance(action, Read) and action.moved_from == "a"


def test_copies_are_read_once() -> None:
    both = [log("a"), log("b", key="a")]
    assert sentences(both) == ["read me/demo/r1 from byte 0 of b (new)", "leave a, it is a copy of b"]
    known = [read(both[0]), read(both[1], status="copy")]
    assert sentences(both, known) == []
    # The one that was read stays the one that is read, unless the other has more.
    assert sentences([log("a", 200), log("b", key="a")], known) == ["read me/demo/r1 from byte 100 of a (grown)"]
    assert sentences([log("a"), log("b", 200, key="a")], known) == [
        "read me/demo/r1 from byte 100 of b (moved)",
        "leave a, it is a copy of b",
    ]
    assert sentences([log("b", key="a")], known) == ["read me/demo/r1 from byte 100 of b (moved)"]


def test_several_logs_of_a_run_are_read_in_the_order_they_were_begun() -> None:
    assert sentences([log("a", at=2.0), log("b", at=1.0)]) == [
        "read me/demo/r1 from byte 0 of b (new)",
        "read me/demo/r1 from byte 0 of a (new)",
    ]


def test_a_resumed_run_is_read_on_in_its_new_log() -> None:
    first, second = log("a", at=1.0), log("b", at=2.0)
    assert sentences([first, second], [read(first)], 9) == ["read me/demo/r1 from byte 0 of b (new)"]


def test_an_earlier_log_that_turns_up_puts_the_rows_into_order() -> None:
    first, second = log("a", at=1.0), log("b", at=2.0)
    again = ["read me/demo/r1 from byte 0 of a (again)", "read me/demo/r1 from byte 0 of b (again)"]
    assert sentences([first, second], [read(second)], 9) == again
    # It cannot be done when the later one is gone: then its rows stay, and the earlier ones come after.
    assert sentences([first], [read(second)], 9) == ["read me/demo/r1 from byte 0 of a (new)"]


def test_runs_of_one_id_in_two_projects_stay_apart() -> None:
    other = RunRef("me", "other", "r1")
    assert sentences([log("a"), log("b", ref=other)]) == [
        "read me/demo/r1 from byte 0 of a (new)",
        "read me/other/r1 from byte 0 of b (new)",
    ]


def test_a_rewind_seen_at_first_sight_drops_what_is_void_while_reading() -> None:
    first, second, third = log("a", at=1.0), log("b", at=2.0, rewinds_to=5), log("c", at=3.0, rewinds_to=3)
    actions = list(plan([third, first, second], [], {}))
    assert [(a.log.path, a.keep_until) for a in actions if isinstance(a, Read)] == [("a", 3), ("b", 3), ("c", None)]
    assert len(actions) == 3


def test_a_rewind_of_rows_in_the_cache_cuts_them() -> None:
    first, second = log("a", at=1.0), log("b", at=2.0, rewinds_to=5)
    assert sentences([first, second], [read(first)], 9) == [
        "rewind me/demo/r1 to step 5",
        "read me/demo/r1 from byte 0 of b (new)",
    ]
    # Nothing to cut: the rows end before that, or it was cut already.
    assert sentences([first, second], [read(first)], 5) == ["read me/demo/r1 from byte 0 of b (new)"]
    # The earlier log is gone from the disk; its rows are cut all the same.
    assert sentences([second], [read(first)], 9)[0] == "rewind me/demo/r1 to step 5"
    # Once it is read, neither its growing nor its moving cuts anything.
    moved = replace(second, path="c", signature="c:100")
    assert sentences([first, moved], [read(first), read(second)], 20) == ["read me/demo/r1 from byte 100 of c (moved)"]
    grown = replace(second, size=200, signature="b:200")
    assert sentences([first, grown], [read(first), read(second)], 20) == ["read me/demo/r1 from byte 100 of b (grown)"]


def test_a_cut_comes_before_all_reading_and_once() -> None:
    first, second, third = log("a", at=1.0), log("b", at=2.0, rewinds_to=5), log("c", at=3.0, rewinds_to=3)
    assert sentences([log("a", 200, at=1.0), second, third], [read(first)], 9, served={RUN}) == [
        "rewind me/demo/r1 to step 3",
        "read me/demo/r1 from byte 100 of a (grown)",
        "read me/demo/r1 from byte 0 of b (new)",
        "read me/demo/r1 from byte 0 of c (new)",
    ]
    # Of a run that no server has, all is read again, and what is void is left out on the way: nothing is cut.
    actions = list(plan([log("a", 200, at=1.0), second, third], [read(first)], {RUN: 9}))
    assert [(one.log.path, one.start, one.reason, one.keep_until) for one in actions if isinstance(one, Read)] == [
        ("a", 0, "again", 3),
        ("b", 0, "again", 3),
        ("c", 0, "again", None),
    ]
    assert len(actions) == 3


def test_a_log_that_grows_after_it_was_rewound_gives_no_void_rows() -> None:
    first, second = log("a", 100, at=1.0), log("b", at=2.0, rewinds_to=5)
    actions = list(plan([log("a", 200, at=1.0), second], [read(first), read(second)], {RUN: 20}))
    assert [(one.log.path, one.keep_until) for one in actions if isinstance(one, Read)] == [("a", 5), ("b", None)]


def test_a_run_is_read_again_when_what_is_new_comes_before_or_between_its_rows() -> None:
    first, second = log("a", 100, at=1.0), log("b", 100, at=2.0)
    grown, more = log("a", 200, at=1.0), log("b", 200, at=2.0)
    again = ["read me/demo/r1 from byte 0 of a (again)", "read me/demo/r1 from byte 0 of b (again)"]
    known = [read(first), read(second)]
    assert sentences([grown, second], known, 9) == again
    assert sentences([first, more], known, 9) == ["read me/demo/r1 from byte 100 of b (grown)"]
    # The first one was still being written when the second one began.
    assert sentences([first, more], [replace(read(first), last_time=2.5), read(second)], 9) == again
    # Two are new: whether they were written at one time nobody knows yet.
    assert sentences([first, second, log("c", at=3.0)], [read(first)], 9)[0] == again[0]
    # A server has the run, and says which steps its rows have; or a log is gone, and its rows could not be read again.
    assert sentences([grown, second], known, 9, served={RUN})[0] == "read me/demo/r1 from byte 100 of a (grown)"
    assert sentences([grown], known, 9) == ["read me/demo/r1 from byte 100 of a (grown)"]
    assert sentences([log("a", 100, at=1.0, touch="!"), second], known, 9) == [
        "read me/demo/r1 from byte 100 of a (touched)"
    ]


def test_a_fork_is_a_run_like_any_other() -> None:
    child = RunRef("me", "demo", "r2")
    assert sentences([log("a"), log("b", ref=child)], [read(log("a"))]) == ["read me/demo/r2 from byte 0 of b (new)"]


UNNAMED = RunRef("local", "demo", "r1")


def test_an_entity_known_later_renames_the_run() -> None:
    assert sentences([log("a", 200)], [read(log("a"), ref=UNNAMED)]) == [
        "rename local/demo/r1 to me/demo/r1",
        "read me/demo/r1 from byte 100 of a (grown)",
    ]


def test_an_entity_known_later_joins_the_run_that_has_it() -> None:
    first, second = log("a", at=1.0), log("b", at=2.0)
    assert sentences([first, second], [read(first), read(second, ref=UNNAMED)], 9) == [
        "forget local/demo/r1, it is me/demo/r1",
        "read me/demo/r1 from byte 0 of b (new)",
    ]


def test_a_renamed_run_can_be_rewound_and_its_old_name_used_anew() -> None:
    first, second = log("a", at=1.0), log("b", at=2.0, rewinds_to=5)
    other = log("c", ref=UNNAMED, at=3.0)
    assert sentences([first, second, other], [read(first, ref=UNNAMED)], 9) == [
        "rename local/demo/r1 to me/demo/r1",
        "read local/demo/r1 from byte 0 of c (new)",
        "rewind me/demo/r1 to step 5",
        "read me/demo/r1 from byte 0 of b (new)",
    ]


def test_a_run_of_which_a_log_is_gone_keeps_its_name() -> None:
    first, second = log("a", at=1.0), log("b", at=2.0)
    known = [read(first, ref=UNNAMED), read(second, ref=UNNAMED)]
    assert not any("rename" in line or "forget" in line for line in sentences([second], known, 9))


def test_logs_that_vanished_cost_nothing() -> None:
    assert sentences([], [read(log())]) == []
    assert sentences([log("b", at=2.0)], [read(log("a", at=1.0)), read(log("b", at=2.0))], 9) == []


def test_full_reads_everything_again() -> None:
    first, second = log("a", at=1.0), log("b", at=2.0, rewinds_to=5)
    assert sentences([first, second], [read(first), read(second)], 9, full=True) == [
        "read me/demo/r1 from byte 0 of a (again)",
        "read me/demo/r1 from byte 0 of b (again)",
    ]


def test_full_keeps_rows_whose_log_is_gone() -> None:
    first, second = log("a", at=1.0), log("b", at=2.0)
    assert sentences([second], [read(first), read(second)], 9, full=True) == []
    moved = log("c", key="a", at=1.0)  # but a log that only moved is not gone
    assert sentences([moved], [read(first)], 9, full=True) == ["read me/demo/r1 from byte 0 of c (again)"]


def test_a_run_whose_rows_were_removed_is_read_again_if_anything_is_new() -> None:
    first, second = log("a", at=1.0), log("b", at=2.0)
    both = [read(first), read(second)]
    assert sentences([first, second], both, 9, evicted={RUN}) == [], "else it would be removed and read for ever"
    again = ["read me/demo/r1 from byte 0 of a (again)", "read me/demo/r1 from byte 0 of b (again)"]
    assert sentences([first, log("b", 200, at=2.0)], both, 9, evicted={RUN}) == again
    assert sentences([first, second], [read(first)], 9, evicted={RUN}) == again
    assert sentences([log("b", 200, at=2.0)], both, 9, evicted={RUN}) == ["read me/demo/r1 from byte 100 of b (grown)"]
    assert sentences([first], [], evicted={RUN}) == ["read me/demo/r1 from byte 0 of a (again)"], (
        "it came from a server"
    )


def test_another_log_under_an_old_path_is_a_new_log() -> None:
    assert sentences([log("a", 300, key="other", at=2.0)], [read(log("a"))], 9) == [
        "read me/demo/r1 from byte 0 of a (new)"
    ]


# What a log says of itself does not change; whose it is may be learned later, and files come, go, move and grow.
SAID = {"u": ("r", 1.0, None), "v": ("r", 2.0, 2), "w": ("r", 3.0, None), "x": ("r", 3.0, 4), "y": ("s", 1.0, None)}


def said(path: str, size: int, entity: str, key: str) -> Listed:
    run_id, at, rewinds_to = SAID[key]
    return log(path, size, ref=RunRef(entity, "demo", run_id), key=key, at=at, rewinds_to=rewinds_to)


FILES = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(1, 5), st.sampled_from(sorted(SAID))),
    max_size=6,
    unique_by=lambda one: one[0],
)
ENTITIES = st.sampled_from([("local", "local"), ("local", "me"), ("me", "me")])


def done(actions: list[Action], known: list[Known]) -> list[Known]:
    """What the cache knows when the plan has been carried out."""
    cached = {one.path: one for one in known}
    for action in actions:
        if isinstance(action, Rename):
            cached = {
                path: replace(one, ref=action.to if one.ref == action.ref else one.ref) for path, one in cached.items()
            }
        elif isinstance(action, Forget):
            cached = {path: one for path, one in cached.items() if one.ref != action.ref}
        elif isinstance(action, Read):
            moved = cached.get(action.moved_from or "")
            if moved is not None and moved.log_key == action.log.log_key:
                del cached[moved.path]
            cached[action.log.path] = read(action.log)
        elif isinstance(action, Copy):
            cached[action.log.path] = read(action.log, status="copy")
        elif isinstance(action, Look):
            cached[action.path] = replace(cached[action.path], status="crashed")
        else:
            assert isinstance(action, Cut)
    return list(cached.values())


@given(FILES, FILES, ENTITIES, st.booleans())
def test_a_plan_carried_out_leaves_nothing_to_do(before: Any, now: Any, entities: tuple[str, str], full: bool) -> None:
    known: list[Known] = []
    for files, entity in zip((before, now), entities, strict=True):
        listed = [said(path, size, entity, key) for path, size, key in files]
        actions = list(plan(listed, known, {one.ref: 3 for one in known}, full=full))
        reads = [action.log.path for action in actions if isinstance(action, Read)]
        assert len(reads) == len(set(reads))
        known = done(actions, known)
        assert {one.path for one in listed} <= {one.path for one in known}  # no log is overlooked
        assert list(plan(listed, known, {one.ref: 3 for one in known})) == []
