"""When Host believes its clock, look by look."""

import pytest

from host_agent.clock_watch import BELIEVED_SECONDS, LEAP_SECONDS, ClockWatch

YEAR = 365 * 86_400


@pytest.fixture
def watch():
    """Look at a clock that is off by so much, when so many seconds have passed."""
    passed = [0]
    watched = ClockWatch(lambda: passed[0])

    def look(seconds, off=0):
        passed[0] = seconds
        return watched.leap(1_000_000 + seconds + off)

    assert look(0) == 0
    return look


def test_a_clock_that_leaps_is_believed_when_it_is_back_or_after_a_day(watch):
    assert watch(10, LEAP_SECONDS) == 0
    assert watch(20, YEAR) == YEAR - LEAP_SECONDS
    assert watch(30, LEAP_SECONDS) == 0
    assert watch(40, YEAR) == YEAR - LEAP_SECONDS
    assert watch(40 + BELIEVED_SECONDS, YEAR) == 0


def test_a_second_leap_has_a_day_of_its_own(watch):
    assert watch(10, 2 * LEAP_SECONDS) > 0
    assert watch(BELIEVED_SECONDS, YEAR) > 0
    assert watch(BELIEVED_SECONDS + 10, YEAR) > 0
    assert watch(2 * BELIEVED_SECONDS, YEAR) == 0


def test_a_clock_that_was_slow_for_a_while_has_not_leapt_when_it_is_right_again(watch):
    assert watch(10, -YEAR) == 0
    assert watch(20) == 0
    assert watch(30, -YEAR) == 0
    assert watch(BELIEVED_SECONDS) == 0


def test_a_clock_that_was_put_back_is_believed_after_a_day(watch):
    assert watch(10, -YEAR) == 0
    assert watch(10 + BELIEVED_SECONDS, -YEAR) == 0
    assert watch(20 + BELIEVED_SECONDS) == YEAR
