"""A little of `make fuzz`, and all that it ever found."""

from __future__ import annotations

import json
from pathlib import Path

import fuzz
import pytest

from wandbsync.sources.api.answers import data_of
from wandbsync.sources.api.credentials import Login

CASES = {"log": 8, "records": 8, "export": 150, "answers": 60, "config": 400, "names": 400}


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_nothing_breaks(target: str) -> None:
    wrong = [found for seed in range(CASES[target]) if (found := fuzz.once(target, seed))]
    assert not wrong, wrong[0]


@pytest.mark.parametrize("seed", sorted(fuzz.SEEDS.glob("*-*")), ids=lambda path: path.name)
def test_what_broke_once_does_not_again(seed: Path, tmp_path: Path) -> None:
    fuzz.READERS[seed.name.rsplit("-", 1)[0]](seed.read_bytes(), tmp_path)


def test_half_a_character_in_an_answer_is_replaced_and_values_inside_texts_stay() -> None:
    sent = {"data": {"name": "\ud800x", "row": json.dumps({"t": "\ud800"}), "\udfff": [1, "\ude00"]}}
    found = data_of(200, {"content-type": "application/json"}, json.dumps(sent).encode(), Login("http://x", "k" * 40))
    assert found == {"name": "?x", "row": '{"t": "\\ud800"}', "?": [1, "?"]}
