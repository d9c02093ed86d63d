"""Which routes get the MTU inside a tunnel, in a kernel that answers as `ip` does."""

import json
from subprocess import CompletedProcess

import pytest

from carnet.ipsec.inside import mtu

ADDRESS, PEER, HOST = "10.99.0.7", "198.51.100.2", "10.20.0.9"


@pytest.mark.parametrize(
    ("networks", "changed"),
    [
        (("10.20.0.0/16", HOST), {"10.20.0.0/16", HOST}),
        (("default", HOST, PEER), {"default", HOST}),
        ((PEER,), {PEER}),
    ],
    ids=["a host in a network", "and Target in another", "Target alone"],
)
def test_a_host_that_is_granted_has_the_mtu_and_what_carries_the_tunnel_has_not(
    monkeypatch, networks, changed
):
    told = []

    def ip(*words):
        if "change" in words:
            told.append(words[words.index("change") + 1])
        route = {"dev": "lo", "prefsrc": ADDRESS, "protocol": "204"}
        listed = [{"mtu": 1500}] if "link" in words else [{"dst": d, **route} for d in networks]
        return CompletedProcess(words, 0, json.dumps(listed), "")

    monkeypatch.setattr(mtu, "ip", ip)
    mtu.fit(ADDRESS, 1300, {PEER})
    assert set(told) == changed
