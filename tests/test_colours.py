"""Which run has which colour, and that colours can be told apart."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wandbsync.plot import colours, style
from wandbsync.plot.colours import NAME, PLACES, assign, remembered

FIGURES = st.lists(st.lists(st.sampled_from("abcdefghijklmnop"), unique=True, min_size=1, max_size=12), max_size=8)


@given(FIGURES)
def test_a_place_is_kept_for_good(figures):
    known: dict[str, int] = {}
    for drawn in figures:
        places = assign(known, drawn)
        assert list(places) == drawn
        assert all(places[name] == known[name] for name in drawn if name in known)
        new = [name for name in drawn if name not in known]
        if len(drawn) <= PLACES:  # a new line never takes the colour of another one in its figure
            for name in new:
                assert sum(place == places[name] for place in places.values()) == 1
        known |= places


def test_the_first_ones_have_the_first_colours_and_all_are_used():
    assert list(assign({}, "abc").values()) == [0, 1, 2]
    assert sorted(assign({}, [str(i) for i in range(10)]).values()) == list(range(10))
    assert assign({"a": 0, "b": 1}, ["c"]) == {"c": 2}


def test_places_are_remembered_by_scope(tmp_path):
    folder = tmp_path / "plots"
    assert remembered(folder, "me/demo", ["a", "b"]) == {"a": 0, "b": 1}
    assert remembered(folder, "me/other", ["c"]) == {"c": 0}
    assert remembered(folder, "me/demo", ["b", "c"]) == {"b": 1, "c": 2}
    assert json.loads((folder / NAME).read_text())["me/demo"] == {"a": 0, "b": 1, "c": 2}
    assert remembered(None, "me/demo", ["b"]) == {"b": 0}


@pytest.mark.parametrize("odd", [b"{", b"[]", b'{"s": 1}', b'{"s": {"a": "x", "b": 99, "c": 4}}', b"\xff"])
def test_what_is_damaged_is_forgotten(tmp_path, odd):
    (tmp_path / NAME).write_bytes(odd)
    assert remembered(tmp_path, "s", ["a"]) == {"a": 0}
    assert remembered(tmp_path, "s", ["a"]) == {"a": 0}


def test_the_oldest_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(colours, "KEPT", 3)
    remembered(tmp_path, "s", ["a", "b", "c"])
    remembered(tmp_path, "s", ["d"])
    assert set(json.loads((tmp_path / NAME).read_text())["s"]) == {"b", "c", "d"}


# Machado, Oliveira and Fernandes (2009), severity 1: how the world looks without red, green or blue cones.
BLIND = {
    "none": np.eye(3),
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(colour: str, how: str) -> np.ndarray:
    """CIELAB of a colour as somebody sees it."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(BLIND[how]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("how", BLIND)
@pytest.mark.parametrize("look", ["screen", "dark"])
def test_colours_are_far_apart_for_everybody(how, look):
    palette = style.LOOKS[look].colours
    assert len(palette) == len(set(palette)) == PLACES
    for few, least in ((palette[:7], 15.0), (palette, 12.0)):
        nearest = min(np.linalg.norm(seen(a, how) - seen(b, how)) for a, b in itertools.combinations(few, 2))
        assert nearest > least, (how, nearest)
    page = seen(style.LOOKS[look].page, how)
    assert min(abs(seen(colour, how)[0] - page[0]) for colour in palette) > 20, "none vanishes on its page"
