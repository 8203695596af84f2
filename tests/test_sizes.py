"""Sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wandbsync.config import parse_age, show_value
from wandbsync.sizes import exact_size, parse_size, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GB", 20 * 10**9), ("500 MB", 500 * 10**6), ("1.5GiB", 3 << 29), ("1b", 1), ("0B", 0), ("2tb", 2 * 10**12),
     ("unlimited", None), (" Unlimited ", None), ("1kB", 1000), ("1KiB", 1024)],
)  # fmt: skip
def test_a_size_is_read(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["20", 20, True, 1.5, None, "", "-1GB", "1e3GB", "GB", "1PB", "20 G", "much", "1iB", []]
)
def test_what_is_no_size_says_so(text: object) -> None:
    with pytest.raises(ValueError, match="is not a size such as 500MB, 20GB, or unlimited"):
        parse_size(text)


@given(st.integers(0, 10**16))
def test_an_exact_size_is_read_back(size: int) -> None:
    assert parse_size(exact_size(size)) == size


def test_values_are_shown_as_they_are_written() -> None:
    assert show_size(999) == "999 B" and show_size(1.5e9) == "1.5 GB" and show_size(2e15) == "2000.0 TB"
    assert show_value("cache.max_size", 20 * 10**9) == "20GB" and show_value("cache.max_size", None) == "unlimited"
    assert show_value("cache.keep", 90 * 86400.0) == "90d" and show_value("cache.keep", None) == "unlimited"
    assert show_value("cache.max_age", 300.0) == "5m" and show_value("server.newer_than", None) is None
    assert show_value("file", "x") == "x"
    assert parse_age("90d") == 90 * 86400 and parse_age("unlimited") is None
    with pytest.raises(ValueError, match="or unlimited"):
        parse_age("soon")
