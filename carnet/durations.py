"""Durations as a person writes them: 8h, 90m, 1d."""

import re

LONGEST_SECONDS = 366 * 86400
"""Of a session's lifetime, and of any other duration in a message."""
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_PART = re.compile(r"([0-9]{1,9})([dhms])")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def parse_duration(text: str) -> int:
    """Return the seconds in a duration such as "8h", "90m" or "1h30m".

    Raises ValueError for anything else, and for no time at all.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is no duration; write it like 8h, 90m or 1d.")
    seconds = sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(text))
    if not seconds:
        raise ValueError(f"{text!r} is no time at all; write a duration like 8h, 90m or 1d.")
    return seconds


def format_duration(seconds: int) -> str:
    """Return a duration as parse_duration() reads it, in the greatest units that fit."""
    parts = []
    for unit, size in _UNITS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
