"""A clock of Target's that is wrong makes no session shorter or longer than was asked for."""

from types import SimpleNamespace

import pytest

from carnet.errors import IPsecError
from tests.unit.examples import make_request
from token_client.target_clock import Counted, counted

NOW, ASKED = 1_000_000_000.5, 7200
HOUR, DAY = 3600, 86400


def ends(off=0, behind=0, asked=ASKED, age=1.0, granted=ASKED):
    """What is made of the answer of a Target whose clock is off."""
    request = make_request(lifetime=asked, target="work")
    expires = int(NOW) + off + granted
    return counted(SimpleNamespace(request=request, age=age), expires, NOW, behind)


@pytest.mark.parametrize("off", [HOUR, DAY, -HOUR, -DAY, 62, -63])
def test_what_was_asked_for_is_counted_here_where_targets_clock_is_wrong(off):
    found = ends(off)
    assert (found.expires, found.clock_behind) == (int(NOW) - 1 + ASKED, 0)
    assert abs(found.target_ahead - off) < 3


@pytest.mark.parametrize(
    ("off", "behind", "age"),
    [
        (0, 0, 0.1),
        (50, 0, 0.1),
        (-50, 0, 0.1),
        (-600, 0, 600.0),  # an answer that an earlier run was given
        (DAY, DAY, 0.1),  # this machine's clock is wrong
        (-DAY, -DAY, 0.1),
    ],
)
def test_a_clock_of_targets_that_agrees_with_one_is_believed(off, behind, age):
    assert ends(off, behind, age=age) == Counted(int(NOW) + off + ASKED, behind)


@pytest.mark.parametrize("behind", [HOUR, -HOUR, 61])
@pytest.mark.parametrize("off", [0, 50, -50])
def test_where_targets_clock_agrees_with_this_one_the_hosts_says_nothing(off, behind):
    """It is the Host's that is wrong, or its date was forged."""
    assert ends(off, behind) == Counted(int(NOW) + off + ASKED, 0)


@pytest.mark.parametrize("off", [59, -59, 8, -9])
def test_of_a_short_session_less_is_a_clock_that_is_wrong(off):
    """Else one of a minute would be a second long, without a word."""
    found = ends(off, asked=60, granted=60)
    assert (found.expires, found.clock_behind) == (int(NOW) - 1 + 60, 0)
    assert abs(found.target_ahead - off) < 3
    assert ends(-5, asked=60, granted=60) == Counted(int(NOW) - 5 + 60, 0)


def test_an_answer_of_an_earlier_run_is_counted_from_then():
    assert ends(HOUR, age=500.5).expires == int(NOW) - 500 + ASKED


def test_the_hosts_clock_makes_no_session_longer_where_all_three_differ():
    found = ends(-DAY, HOUR)
    assert (found.expires, found.clock_behind) == (int(NOW) - 1 + ASKED, 0)


def test_where_no_lifetime_was_named_a_session_that_is_over_is_refused():
    assert ends(-HOUR, asked=None) == Counted(int(NOW) - HOUR + ASKED, 0)
    with pytest.raises(IPsecError, match=r"Target work's clock is wrong.*over 22h ago.*--lifetime"):
        ends(-DAY, asked=None)
