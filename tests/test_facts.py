"""What logs say of a run besides rows: config, names, state, and the summary that follows from rows and facts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from wandbsync.cache.stats import Stat, measure
from wandbsync.cache.summary import summarize
from wandbsync.model import Kind
from wandbsync.sources import wire
from wandbsync.sources.facts import Facts, record


def message(record: str, /, **values: Any) -> Any:
    made = wire.EVENTS[record]()
    for key, value in values.items():
        getattr(made, key).extend(value) if isinstance(value, list) else setattr(made, key, value)
    return made


def items(record: Any, **values: Any) -> Any:
    """The record, with these updates; a__b is the nested key a.b."""
    for key, value in values.items():
        item = record.update.add(value_json=json.dumps(value))
        if "__" in key:
            item.nested_key.extend(key.split("__"))
        else:
            item.key = key
    return record


def config(**values: Any) -> Any:
    return items(message("config"), **values)


def facts(*records: tuple[str, Any]) -> Facts:
    """What these records say, put away and fetched back after each."""
    found = Facts()
    for name, one in records:
        found.learn(name, one, None)
        found = Facts.load(json.loads(json.dumps(found.dump())))
    return found


def run(*logs: Facts, alive: bool = False) -> Any:
    return record(list(logs), alive=alive, heartbeat_at=None, incomplete=None)


# -- config and names


def test_config_is_updated_by_key_and_by_nested_key() -> None:
    start = message("run", run_id="r")
    items(start.config, lr=0.1, opt={"name": "adam", "eps": 1e-8}, _wandb={"t": 1})
    late = config(lr=0.2, opt__name="sgd", new__a__b=1)
    assert facts(("run", start), ("config", late)).config == {
        "lr": 0.2,
        "opt": {"name": "sgd", "eps": 1e-8},
        "new": {"a": {"b": 1}},
    }


def test_a_nested_key_replaces_a_plain_value() -> None:
    assert facts(("config", config(a=1)), ("config", config(a__b=2))).config == {"a": {"b": 2}}


def test_config_keys_can_be_removed() -> None:
    gone = message("config")
    gone.remove.add(key="a")
    gone.remove.add(nested_key=["b", "c"])
    gone.remove.add(nested_key=["never", "was"])
    assert facts(("config", config(a=1, b={"c": 2, "d": 3})), ("config", gone)).config == {"b": {"d": 3}}


def test_the_sdks_own_config_is_left_out_however_it_is_keyed() -> None:
    assert facts(("config", config(_wandb={"x": 1}, _wandb__y=2))).config == {}


def test_config_that_is_not_json_stays_as_text() -> None:
    odd = message("config")
    odd.update.add(key="a", value_json="not json")
    assert facts(("config", odd)).config == {"a": "not json"}


def test_an_update_of_the_run_keeps_what_it_does_not_say() -> None:
    first = message("run", run_id="r", display_name="one", notes="n", run_group="g", job_type="j", sweep_id="s",
                    host="h", tags=["a", "b"])  # fmt: skip
    found = run(facts(("run", first), ("run", message("run", run_id="r", tags=["c"], display_name="two"))))
    assert (found.display_name, found.tags) == ("two", ("c",))
    assert (found.notes, found.group, found.job_type, found.sweep_id, found.host) == ("n", "g", "j", "s", "h")


def test_of_several_logs_the_later_has_the_last_word() -> None:
    first = message("run", run_id="r", display_name="one", notes="first", tags=["a"])
    first.start_time.seconds = 100
    items(first.config, lr=1, only=1)
    second = message("run", run_id="r", display_name="two")
    second.start_time.seconds = 200
    items(second.config, lr=2)
    found = run(facts(("run", first), ("exit", message("exit", exit_code=1))), facts(("run", second)))
    assert (found.display_name, found.notes, found.tags, found.created_at) == ("two", "first", ("a",), 100)
    assert found.config == {"lr": 2, "only": 1}
    assert (found.state, found.exit_code) == ("crashed", None)  # the second has no end


# -- state


@pytest.mark.parametrize(
    ("records", "alive", "state"),
    [
        ([("exit", message("exit", exit_code=0))], False, "finished"),
        ([("exit", message("exit", exit_code=1))], False, "failed"),
        ([("exit", message("exit", exit_code=255))], False, "failed"),
        ([("preempting", message("preempting")), ("exit", message("exit", exit_code=1))], False, "preempted"),
        ([("preempting", message("preempting"))], True, "preempting"),
        ([], True, "running"),
        ([], False, "crashed"),
    ],
)
def test_the_state_follows_from_the_end_of_the_log(records: Any, alive: bool, state: str) -> None:
    assert run(facts(*records), alive=alive).state == state


def test_a_run_goes_on_while_one_of_its_processes_does() -> None:
    ended = facts(("exit", message("exit", exit_code=0)))
    assert run(Facts(), ended, alive=True).state == "running"


def test_a_fork_names_its_parent_and_a_rewind_does_not() -> None:
    fork, rewind = message("run", run_id="child"), message("run", run_id="r")
    for one, origin in ((fork, "parent"), (rewind, "r")):
        one.branch_point.run, one.branch_point.value = origin, 5
    assert run(facts(("run", fork))).forked_from == "parent@5"
    assert run(facts(("run", rewind))).forked_from is None


# -- summary


def stat(*rows: tuple[int, float | int | str]) -> Stat:
    """The stat of these (step, value) rows, as a commit measures it."""
    step = np.array([at for at, _ in rows])
    text = pa.array([json.dumps(value) if isinstance(value, str) else None for _, value in rows], pa.large_string())
    value = np.array([np.nan if isinstance(value, str) else value for _, value in rows], float)
    kind = np.array(
        [Kind.JSON if isinstance(v, str) else Kind.INT if isinstance(v, int) else Kind.FLOAT for _, v in rows]
    )
    (found,) = measure(np.array([0]), step, value, kind.astype(np.uint8), text)
    return found


def summary(stats: dict[str, Stat], *logs: Facts, paths: Any = {}) -> dict[str, Any]:  # noqa: B006
    return summarize(stats, paths, run(*logs).rules if logs else None, None)


ROWS = {"x": stat((0, 3.0), (1, 1.0), (2, 2.0))}


def defined(name: str, glob: bool = False, **how: Any) -> tuple[str, Any]:
    made = message("metric", **({"glob_name": name} if glob else {"name": name}))
    made.goal = how.pop("goal", 0)
    for aggregate in how:
        setattr(made.summary, aggregate, True)
    return "metric", made


def test_the_summary_is_the_last_value() -> None:
    assert summary(ROWS | {"text": stat((0, "a"), (5, "b"))}) == {"x": 2.0, "text": "b"}


def test_nested_keys_make_nested_values() -> None:
    assert summary({"a.b": stat((0, 1)), "c.d": stat((0, 2))}, paths={"a.b": ["a", "b"]}) == {"a": {"b": 1}, "c.d": 2}


@pytest.mark.parametrize(
    ("how", "value"),
    [
        ({"min": 1}, {"min": 1.0}),
        ({"max": 1}, {"max": 3.0}),
        ({"mean": 1}, {"mean": 2.0}),
        ({"first": 1}, {"first": 3.0}),
        ({"last": 1}, {"last": 2.0}),
        ({"best": 1, "goal": 1}, {"best": 1.0}),
        ({"best": 1, "goal": 2}, {"best": 3.0}),
        ({"min": 1, "max": 1}, {"min": 1.0, "max": 3.0}),
        ({"copy": 1}, 2.0),
        ({}, 2.0),
    ],
)
def test_define_metric_asks_for_aggregates(how: dict[str, Any], value: Any) -> None:
    assert summary(ROWS, facts(defined("x", **how))) == {"x": value}
    assert summary(ROWS, facts(defined("*", glob=True, **how))) == {"x": value}


def test_summary_none_is_none() -> None:
    assert summary(ROWS, facts(defined("x", none=1))) == {}


def test_a_key_of_its_own_beats_a_glob_and_a_longer_glob_a_shorter() -> None:
    stats = {"g/a": ROWS["x"], "g/h/b": ROWS["x"], "g/own": ROWS["x"]}
    found = facts(defined("g/*", glob=True, max=1), defined("g/h/*", glob=True, min=1), defined("g/own"))
    assert summary(stats, found) == {"g/a": {"max": 3.0}, "g/h/b": {"min": 1.0}, "g/own": 2.0}


def test_a_dot_in_define_metric_parts_nested_names() -> None:
    stats = {"d.x": ROWS["x"], "lit.x": ROWS["x"], "esc.x": ROWS["x"]}
    found = facts(defined("d.x", max=1), defined("lit.x", max=1), defined("esc\\.x", max=1))
    assert summary(stats, found, paths={"d.x": ("d", "x")}) == {
        "d": {"x": {"max": 3.0}},
        "lit.x": 2.0,
        "esc.x": {"max": 3.0},
    }


def test_a_later_definition_adds_and_overwrite_replaces() -> None:
    replaced = defined("x", mean=1)
    replaced[1]._control.overwrite = True
    assert summary(ROWS, facts(defined("x", max=1), defined("x", min=1))) == {"x": {"min": 1.0}}
    assert summary(ROWS, facts(defined("x", max=1), defined("x"))) == {"x": {"max": 3.0}}
    assert summary(ROWS, facts(defined("x", max=1), replaced)) == {"x": {"mean": 2.0}}


def by_hand(after: int | None, **values: Any) -> Facts:
    found = Facts()
    found.learn("summary", items(message("summary"), **values), after)
    return found


def test_a_value_set_by_hand_stands_until_the_key_is_logged_again() -> None:
    assert summary(ROWS, by_hand(None, x=9, other=1)) == {"x": 2.0, "other": 1}
    assert summary(ROWS, by_hand(1, x=9)) == {"x": 2.0}
    assert summary(ROWS, by_hand(2, x=9)) == {"x": 9}


def test_a_value_set_by_hand_ends_the_aggregates() -> None:
    found = by_hand(None, x=9)
    found.learn(*defined("x", max=1), None)
    assert summary(ROWS, found) == {"x": 2.0}


def test_a_summary_written_by_the_sdk_itself_does_not_end_them() -> None:
    found = by_hand(1, x={"max": 3.0})  # as the Python service and a resumed run write it
    found.learn(*defined("x", max=1), None)
    assert summary(ROWS, found) == {"x": {"max": 3.0}}
    stale = by_hand(1, x__max=1.5)
    stale.learn(*defined("x", max=1), None)
    assert summary(ROWS, stale) == {"x": {"max": 3.0}}


def test_a_key_can_be_removed_from_the_summary() -> None:
    gone = message("summary")
    gone.remove.add(key="x")
    gone.remove.add(nested_key=["a", "b"])
    found = by_hand(0, a={"b": 1, "c": 2})
    found.learn("summary", gone, 2)
    assert summary(ROWS, found) == {"a": {"c": 2}}


def test_the_step_follows_from_the_rows_alone() -> None:
    assert summarize(ROWS, {}, run(by_hand(None, _step=310)).rules, 2) == {"x": 2.0, "_step": 2}


def test_what_was_set_by_hand_after_the_step_of_a_rewind_is_void() -> None:
    rewind = message("run", run_id="r")
    rewind.branch_point.run, rewind.branch_point.value = "r", 5
    kept, void = by_hand(5, kept=1), by_hand(9, void=1)
    assert summary({}, kept, facts(("run", rewind))) == {"kept": 1}
    assert summary({}, void, facts(("run", rewind))) == {}
