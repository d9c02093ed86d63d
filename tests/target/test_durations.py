"""Durations as a person writes them."""

import pytest

from carnet.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("8h", 28800), ("90m", 5400), ("1d", 86400), ("1h30m", 5400), ("7s", 7)]
)
def test_a_duration_is_so_many_seconds(text, seconds):
    assert parse_duration(text) == seconds
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "8", "h", "-8h", "8 h", "8H", "1w", "0h", "8h!", "٨h"])
def test_anything_else_is_no_duration(text):
    with pytest.raises(ValueError, match="write"):
        parse_duration(text)
