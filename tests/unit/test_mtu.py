"""Which routes get the MTU inside a tunnel, in a kernel that answers as `ip` does."""

import json
from subprocess import CompletedProcess

import pytest

from carnet.ipsec.inside import mtu

ADDRESS, PEER, HOST = "10.99.0.7", "198.51.100.2", "10.20.0.9"


@pytest.mark.parametrize(
    ("routes", "networks", "changed"),
    [
        (("10.20.0.0/16", HOST), ("10.20.0.0/16",), {"10.20.0.0/16", HOST}),
        (("default", HOST, PEER), ("0.0.0.0/0",), {"default", HOST}),
        ((PEER,), (), {PEER}),
        (("10.20.0.0/16", "10.30.0.0/16", "10.0.0.0/8"), ("10.20.0.0/16",), {"10.20.0.0/16"}),
    ],
    ids=["a host in a network", "and Target in another", "Target alone", "and another tunnel's"],
)
def test_a_host_that_is_granted_has_the_mtu_and_what_carries_the_tunnel_has_not(
    monkeypatch, routes, networks, changed
):
    told = []

    def ip(*words):
        if "change" in words:
            told.append(words[words.index("change") + 1])
        route = {"dev": "lo", "prefsrc": ADDRESS, "protocol": "204"}
        listed = [{"mtu": 1500}] if "link" in words else [{"dst": d, **route} for d in routes]
        return CompletedProcess(words, 0, json.dumps(listed), "")

    monkeypatch.setattr(mtu, "ip", ip)
    mtu.fit(ADDRESS, 1300, {PEER}, networks)
    assert set(told) == changed


@pytest.mark.parametrize(
    ("version", "facts", "kept"),
    [
        (4, {"dst": "10.20.0.0/16"}, "scope global"),
        (4, {"dst": "10.20.0.0/16", "scope": "253"}, "scope 253"),
        (6, {"dst": "fd20::/64"}, ""),
    ],
)
def test_a_route_keeps_its_scope_by_which_whoever_made_it_takes_it_away(version, facts, kept):
    line = mtu._Route(version, facts | {"dev": "ipsec0", "table": "220"}).line(1300)
    assert ("scope" in line, kept in line) == (kept != "", True)
