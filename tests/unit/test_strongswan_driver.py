"""What the strongSwan driver makes of a daemon that does what is seldom seen of a real one."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from vici.exception import CommandException

from carnet.errors import IKERefusedError, IKESilentError, IPsecError
from carnet.ipsec import inner_address, strongswan
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


def test_an_address_goes_with_a_connection_that_another_took_out_as_it_was_set(monkeypatch):
    """Its connection, by which it is known otherwise, is not listed any more."""
    driver, removed = StrongSwan(Path("/nowhere")), []
    gone = SimpleNamespace(
        get_conns=lambda: {"conns": []}, get_pools=lambda _: {}, unload_shared=lambda _: None
    )
    nothing = SimpleNamespace(sas=lambda *_: [], connections=lambda *_: {})
    standing = [[("carnet-1", {"local-host": "192.0.2.1", "remote-host": "192.0.2.2"})]]
    sas = {"sas": lambda *_: standing.pop() if standing else []}
    listed = SimpleNamespace(**vars(nothing) | sas)
    monkeypatch.setattr(driver, "_listed", listed)
    monkeypatch.setattr(driver, "_negotiation", SimpleNamespace(start=_starts(), end=lambda *_: 0))
    monkeypatch.setattr(driver, "_tying", SimpleNamespace(untie=id, unblock_halves=lambda: None))
    monkeypatch.setattr(strongswan, "open_session", lambda *_: nullcontext(gone))
    monkeypatch.setattr(strongswan, "leftovers", MagicMock())
    monkeypatch.setattr(strongswan, "way_to", lambda *_: None)
    monkeypatch.setattr(inner_address, "install", lambda *_: None)
    monkeypatch.setattr(inner_address, "remove", removed.append)
    spec = example_spec(Objective.ESP, Mode.TUNNEL, (), ike_version=1, ppk=False)
    with pytest.raises(IKERefusedError):
        driver.up(spec)
    driver.down(spec.name)
    assert removed == [spec.virtual_address]


def _starts():
    """Return a negotiation that is refused as soon as there is an address."""

    def start(_, *, has_child):
        if has_child:
            raise IKERefusedError("There is no such connection.")

    return start


def test_what_little_time_is_left_is_a_limit_still(monkeypatch):
    orders = []
    daemon = SimpleNamespace(initiate=lambda order: orders.append(order) or [])
    monkeypatch.setattr(negotiation, "open_session", lambda *_: nullcontext(daemon))
    negotiating = negotiation.Negotiation(Path("/nowhere"), None, 20)
    for seconds in (0.0004, 2.5):
        negotiating.start("carnet-1", has_child=False, seconds=seconds)
    assert [each["timeout"] for each in orders] == ["1", "2500"]


def test_what_does_not_come_up_is_ended_at_once_whatever_its_peer_says(monkeypatch):
    """It may have assigned an address, which is set until then."""
    orders = []

    def initiate(_):
        raise CommandException("It is refused.")

    daemon = SimpleNamespace(initiate=initiate, terminate=lambda it: orders.append(it) or [])
    monkeypatch.setattr(negotiation, "open_session", lambda *_: nullcontext(daemon))
    nothing = SimpleNamespace(sas=lambda *_: [])
    with pytest.raises(IPsecError):
        negotiation.Negotiation(Path("/nowhere"), nothing, 20).start("carnet-1", has_child=True)
    assert orders == [{"ike": "carnet-1", "timeout": "-1", "force": "yes"}]


def test_another_address_is_not_there_until_its_peer_takes_notice_of_the_end(monkeypatch):
    driver, done = StrongSwan(Path("/nowhere")), []
    sas = [("carnet-1", {"local-vips": ["203.0.113.2"]})]
    monkeypatch.setattr(driver, "_listed", SimpleNamespace(sas=lambda *_: sas))
    does = {"start": lambda *_, **__: None, "end_at_once": lambda _: done.append("ended at once")}
    monkeypatch.setattr(driver, "_negotiation", SimpleNamespace(**does))
    monkeypatch.setattr(driver, "down", lambda _: done.append("down"))
    with pytest.raises(IPsecError, match="another virtual address"):
        driver.up(example_spec(Objective.ESP, Mode.TUNNEL, (), ppk=False))
    assert done == ["ended at once", "down"]
