"""A little of `make chaos` each time: nobody is told a wrong number."""

from __future__ import annotations

import chaos
import pytest


@pytest.mark.parametrize("name", ["flip-status", "clock", "log-strange", "server-faults"])
def test_no_harm_makes_a_wrong_number(name: str) -> None:
    (row,) = chaos.rows([name], seconds=0, seed=1, tries=2)
    assert row.tried == 2 and row.wrong == []
