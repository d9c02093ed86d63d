"""What the strongSwan driver makes of a daemon that does what is seldom seen of a real one."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from carnet.errors import IKESilentError
from carnet.ipsec import strongswan_negotiation as negotiation
from carnet.ipsec.example import example_spec
from carnet.ipsec.spec import Mode
from carnet.ipsec.strongswan import StrongSwan
from carnet.objectives import Objective


def test_a_peer_that_ends_it_at_once_is_told_as_a_tunnel_that_went_down(monkeypatch):
    driver, ended = StrongSwan(Path("/nowhere")), []
    monkeypatch.setattr(driver, "_listed", SimpleNamespace(sas=lambda *_: []))
    monkeypatch.setattr(driver, "_negotiation", SimpleNamespace(start=lambda *_, **__: None))
    monkeypatch.setattr(driver, "down", ended.append)
    spec = example_spec(Objective.ESP, Mode.TUNNEL, (), ike_version=1, ppk=False)
    with pytest.raises(IKESilentError, match="went down again as it came up"):
        driver.up(spec)
    assert ended == [spec.name]


def test_what_little_time_is_left_is_a_limit_still(monkeypatch):
    orders = []
    daemon = SimpleNamespace(initiate=lambda order: orders.append(order) or [])
    monkeypatch.setattr(negotiation, "open_session", lambda *_: nullcontext(daemon))
    negotiating = negotiation.Negotiation(Path("/nowhere"), None, 20)
    for seconds in (0.0004, 2.5):
        negotiating.start("carnet-1", has_child=False, seconds=seconds)
    assert [each["timeout"] for each in orders] == ["1", "2500"]
