"""Routes of ours beside others: which metric one has in IPv6, where two of one are one."""

import pytest

from carnet.errors import IPsecError
from carnet.ipsec import routes


def added(monkeypatch, metrics):
    there = [{"dev": "eth0", "protocol": "2", "metric": each} for each in metrics]
    monkeypatch.setattr(routes, "_listed", lambda *_: there)
    (line,) = routes.additions("fd55::/64", "lo", "fd99::7", 204)
    return int(line.rpartition(" metric ")[2])


@pytest.mark.parametrize(
    ("there", "metric"),
    [((), 48), ((256, 1024), 48), ((48, 256), 47), ((47,), 46), ((2, 256), 1), ((1, 48), 47)],
)
def test_a_route_comes_before_the_others_and_in_the_place_of_none(monkeypatch, there, metric):
    assert added(monkeypatch, there) == metric


def test_where_all_are_taken_none_is_replaced(monkeypatch):
    with pytest.raises(IPsecError, match="Too many routes"):
        added(monkeypatch, range(1, 49))
