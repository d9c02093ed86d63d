"""Moments as a person reads them."""

from datetime import UTC, datetime


def format_moment(seconds: int) -> str:
    """Return a moment, in seconds since 1970; what no calendar has is shown as it is."""
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ}"
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"
