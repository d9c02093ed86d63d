"""What a wrong clock of this machine may do to a session, and what is said of it."""

from types import SimpleNamespace

import pytest

from carnet.durations import LONGEST_SECONDS
from token_client.clock import lifetime_from, slowness

NOW, HOURS, YEARS = 1_000_000_000, 8 * 3600, 10 * 365 * 86400


@pytest.mark.parametrize(
    ("off", "behind", "asked", "left"),
    [
        (0, 0, None, HOURS),
        (-YEARS, YEARS, HOURS, HOURS),
        (-YEARS, YEARS, None, LONGEST_SECONDS),
        (-YEARS, 0, None, LONGEST_SECONDS),
        (YEARS, -YEARS, None, HOURS),
        (YEARS, 0, None, 1),
        (0, HOURS, None, HOURS),  # a forged date
        (0, -YEARS, HOURS, HOURS),  # likewise
    ],
)
def test_no_clock_makes_a_session_shorter_or_longer_than_any_may_be(off, behind, asked, left):
    assert lifetime_from(NOW + off + 0.5, NOW + HOURS, behind, asked) == left


def test_a_clock_that_is_before_the_booklet_is_slow():
    cover = SimpleNamespace(issued_at=NOW)
    assert slowness(cover, NOW) is None
    assert "clock is slow: the booklet was minted at 2001" in slowness(cover, NOW - 1)
