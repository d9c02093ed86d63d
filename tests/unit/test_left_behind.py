"""A tunnel that stands at an address which this machine has no more: said, and brought back."""

import threading
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from carnet.errors import IKERefusedError, IPsecError
from carnet.ipsec import iproute, libreswan, strongswan_resuming
from carnet.ipsec.libreswan import Libreswan
from carnet.ipsec.strongswan_resuming import Resuming
from tests.unit.iproute import stand_in
from tests.unit.test_returning import LATER, LIVE
from tests.unit.test_sessions import a_session
from tests.unit.test_watch import SILENT, SilentDriver, resuming
from token_client import left_behind, tunnel_watch
from token_client.describing import describe, facts
from token_client.status import TunnelState

ADDRESSES = '[{}, {"addr_info": [{"local": "192.168.78.7"}, {"local": "fd78::7"}]}]'

INSIDE = """[{"addr_info": [{"local": "10.99.0.2"}, {"local": "10.99.0.3"}, {"local": "127.0.0.1"},
{"local": "::1"}, {"local": "fe80::1"}, {"local": "fd78::7"}]}]"""
"""Of IPv4, nothing but what is inside the tunnel, and where nobody else is."""


@pytest.mark.parametrize(
    ("local", "listed", "way", "left"),
    [
        ("192.168.77.2", ADDRESSES, 0, True),
        ("192.168.78.7", ADDRESSES, 0, False),
        ("fd78:0::7", ADDRESSES, 0, False),
        ("192.168.77.2", ADDRESSES, 2, False),
        ("192.168.77.2", INSIDE, 0, False),
        ("fd77::2", INSIDE, 0, True),
        ("192.168.77.2", "", 0, False),
        ("%any", ADDRESSES, 0, False),
    ],
    ids=[
        "gone",
        "there",
        "IPv6",
        "no way from elsewhere",
        "inside",
        "inside, else IPv6",
        "nobody tells",
        "no address",
    ],
)
def test_what_stands_where_this_machine_is_no_more_is_told(monkeypatch, local, listed, way, left):
    def ip(*arguments, **_):
        return CompletedProcess(arguments, way if "get" in arguments else 0, listed, "")

    stand_in(monkeypatch, ip)
    assert iproute.is_left(local, "198.51.100.2", "10.99.0.2, 10.99.0.3") == left


@pytest.mark.parametrize(
    ("comes_back", "watched", "said"),
    [
        (True, True, "the agent of this machine brings it back"),
        (True, False, "`carnet resume work` brings it back with the same key pair"),
        (False, True, "`carnet connect` opens a new tunnel with the next key pair"),
    ],
)
def test_status_does_not_say_that_it_is_up(comes_back, watched, said):
    session = a_session(expires=LATER)
    for left in (True, False):
        state = TunnelState("carnet-00", session, LIVE, False, comes_back, watched, left=left)
        told = (
            f"stands at an address that this machine has no more, and nothing passes by it; {said}"
        )
        assert (told in describe(state)) == left
        assert (facts(state)["up"], facts(state)["left"]) == (not left, left)


class Looks:
    """What one look after the other finds, each as something has changed."""

    def __init__(self, *found):
        self.found = list(found)

    def is_left(self):
        found = self.found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def wait(self):
        return bool(self.found)

    def close(self):
        self.found.append("closed")


AWAY = IPsecError("It is away.")


@pytest.mark.parametrize(
    ("found", "times"),
    [
        ((True, True), 1),
        ((True, False), 0),
        ((False, True, True, True, False, True, True), 2),
        ((AWAY, True, AWAY, True, True), 1),
    ],
    ids=["stays", "moves", "stays, moves, stays", "nobody answers first"],
)
def test_it_has_a_while_to_move_by_itself(monkeypatch, found, times):
    monkeypatch.setattr(left_behind, "MOVING_SECONDS", 0)
    looks, told = Looks(*found), []
    left_behind.look_on(looks.is_left, lambda: told.append(1), looks, threading.Event())
    assert (len(told), looks.found) == (times, ["closed"])


class Stays(SilentDriver):
    """It stands where this machine is no more; the peer is there all the same."""

    def watch(self):
        self.ends.wait(20)  # at most: else it is for ever where nothing is told
        yield from ()


@pytest.mark.parametrize("kept", [True, False], ids=["its secrets are kept", "none are"])
def test_what_stays_is_brought_back_if_that_can_be_and_told_of_else(monkeypatch, kept):
    left = [True] * 3
    monkeypatch.setattr(left_behind, "MOVING_SECONDS", 0)
    monkeypatch.setattr(tunnel_watch, "is_left", lambda *_: bool(left and left.pop()))
    driver = Stays(SILENT, None)
    if not kept:
        driver.loaded.clear()
        monkeypatch.setattr(tunnel_watch, "_LEFT_FOR_GOOD", "It is back, but for {}.")
    _, told = resuming(driver)
    if kept:
        assert driver.outcomes == []
        assert told == [
            tunnel_watch._LEFT.format("work"),
            "Target work is silent; the tunnel comes back with it.",
            "The tunnel to work is back.",
        ]
    else:
        assert told == ["It is back, but for work."]
        assert len(driver.outcomes) == 2


@pytest.mark.parametrize(
    ("left", "kept", "anew"),
    [([True] * 99, True, True), ([True, True, False], True, False), ([True] * 99, False, None)],
    ids=["stays", "moves", "stays, and no secrets"],
)
def test_resume_negotiates_anew_what_stays(monkeypatch, left, kept, anew):
    sa = {"local-host": "192.168.77.2", "remote-host": "198.51.100.2"}
    begun, looks = [], iter(left)
    listed = SimpleNamespace(parts_of=lambda name: {name: sa}, peers=lambda _: {})
    negotiation = SimpleNamespace(terminate=begun.append, start=lambda *_, **__: None)
    monkeypatch.setattr(strongswan_resuming, "MOVE_TIME_LIMIT", 0 if left[-1] else 60)
    monkeypatch.setattr(strongswan_resuming, "is_left", lambda *_: next(looks))
    monkeypatch.setattr(strongswan_resuming.reports, "is_up", lambda *_: True)
    monkeypatch.setattr(strongswan_resuming.reports, "status", lambda *_: LIVE)
    daemon = Resuming(Path("/nowhere"), listed, negotiation)
    monkeypatch.setattr(daemon, "names", lambda: {"carnet-00"} if kept else set())
    monkeypatch.setattr(daemon, "_has_ppk", lambda _: False)
    if anew is None:
        with pytest.raises(IKERefusedError, match="an address that this machine has no more"):
            daemon.resume("carnet-00")
    else:
        assert daemon.resume("carnet-00") is LIVE
    assert begun == (["carnet-00"] if anew else [])


def test_libreswan_which_keeps_no_secrets_says_that_it_takes_a_new_pair(tmp_path, monkeypatch):
    driver, left = Libreswan(tmp_path / "pluto.ctl"), [True, False]
    live = replace(LIVE, name="carnet-7")
    monkeypatch.setattr(driver, "status", lambda: [live])
    monkeypatch.setattr(libreswan, "is_left", lambda *_: left.pop())
    assert driver.resume("carnet-7") is live
    with pytest.raises(IKERefusedError, match=r"has no more, and .*; run `carnet connect`"):
        driver.resume("carnet-7")
