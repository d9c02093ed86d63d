"""What ties AH and ESP together, in a kernel that answers as `ip` does."""

import re
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from carnet.ipsec import bundle, strongswan_tying
from carnet.ipsec.spec import Mode, Role
from carnet.ipsec.strongswan_listing import Listing
from carnet.ipsec.strongswan_parts import AH_HALF
from carnet.ipsec.strongswan_tying import Tying
from tests.unit.iproute import stand_in

BLOCKS = (
    "src 0.0.0.0/0 dst 0.0.0.0/0 \n\tdir in action block priority 17320 \n"
    "\tmark 0x40000000/0x40000000 \n"
)
HALF = "src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0xc0\n\toutput-mark 0x40000000/0x40000000\n"


class Kernel:
    """What it lists, by the command, and what it was told."""

    def __init__(self, **listed):
        self.listed = listed
        self.told: list[str] = []

    def ip(self, *arguments, said=""):
        if said:
            self.told += said.splitlines()
            self.heed(said)
            return CompletedProcess(arguments, 0, "", "")
        words = [each for each in arguments if each in ("policy", "state")]
        listed = self.listed[words[0]] if words else "[]"
        return CompletedProcess(arguments, int(listed is None), listed or "", "")

    def heed(self, said):
        """What is to be seen afterwards: nothing."""


@pytest.fixture
def kernel_with(monkeypatch):
    def make(kind=Kernel, **listed):
        kernel = kind(**listed)
        stand_in(monkeypatch, kernel.ip)
        monkeypatch.setattr(bundle.shutil, "which", lambda _: "/usr/sbin/ip")
        return kernel

    return make


@pytest.mark.parametrize(
    ("policies", "states", "lifted"),
    [(BLOCKS, "", True), (BLOCKS, HALF, False), (BLOCKS, None, False), ("", "", False)],
    ids=["no half", "a half", "nobody tells", "no block"],
)
def test_the_block_stays_while_the_kernel_has_a_half(kernel_with, policies, states, lifted):
    kernel = kernel_with(policy=policies, state=states)
    bundle.unblock_halves()
    assert len(kernel.told) == (4 if lifted else 0)


OLD, NEW = 1 << 30 | 2, 1 << 30 | 4


def listed(reqid):
    return "".join(
        f"src {source}/32 dst {destination}/32 \\\tdir {direction} priority {bundle.PRIORITY} \\"
        f"\ttmpl src 0.0.0.0 dst 0.0.0.0\\\t\tproto esp reqid {reqid} mode transport\\"
        f"\ttmpl src 0.0.0.0 dst 0.0.0.0\\\t\tproto ah reqid {reqid + 1} mode transport\n"
        for source, destination, direction in (
            ("192.0.2.1", "192.0.2.2", "out"),
            ("192.0.2.2", "192.0.2.1", "in"),
            ("192.0.2.2", "192.0.2.1", "fwd"),
        )
    )


class OneSelector(Kernel):
    """Between two hosts it has one policy, whoever's."""

    def heed(self, said):
        for updated in re.findall("policy update .* proto esp reqid (.*?) ", said):
            self.listed["policy"] = listed(int(updated))
        if "policy delete" in said:
            self.listed["policy"] = ""


NEWER = bundle.Bundle(
    role=Role.TARGET,
    mode=Mode.TRANSPORT,
    ah_mode=Mode.TRANSPORT,
    local_address="192.0.2.1",
    remote_address="192.0.2.2",
    esp_reqid=NEW,
    ah_reqid=NEW + 1,
    selectors=(("192.0.2.1/32", "192.0.2.2/32"),),
)


def test_a_sweep_hands_policies_over_to_a_tunnel_that_stands(kernel_with):
    kernel = kernel_with(OneSelector, policy=listed(OLD))
    bundle.sweep(lambda: {NEW}, lambda: [NEWER])
    assert kernel.listed["policy"] == listed(NEW)
    bundle.sweep(set, list)
    assert kernel.listed["policy"] == ""


def test_a_policy_that_was_handed_over_meanwhile_is_not_swept(kernel_with):
    kernel = kernel_with(OneSelector, policy=listed(OLD))

    def keep():
        bundle.install(NEWER)
        return {NEW}

    bundle.sweep(keep, list)
    assert kernel.listed["policy"] == listed(NEW)


def test_nobody_ties_or_hands_over_while_a_sweep_looks(monkeypatch):
    alone = []
    tying = Tying(Path("/nowhere"), Listing(Path("/nowhere")))
    monkeypatch.setattr(tying, "unblock_halves", lambda: None)
    monkeypatch.setattr(bundle, "sweep", lambda *_: alone.append(tying._alone.locked()))
    tying.sweep(frozenset)
    assert alone == [True]


@pytest.mark.parametrize(
    ("policies", "lifted"), [(BLOCKS, 1), (listed(NEW), 0)], ids=["one", "none"]
)
def test_a_sweep_looks_after_the_block_where_there_is_one(
    kernel_with, monkeypatch, policies, lifted
):
    kernel_with(policy=policies, state="")
    tying, asked = Tying(Path("/nowhere"), Listing(Path("/nowhere"))), []
    monkeypatch.setattr(tying, "unblock_halves", lambda: asked.append(1))
    monkeypatch.setattr(strongswan_tying, "reqids", lambda _: (NEW, NEW + 1))
    tying.sweep(lambda: frozenset({"kept"}))
    assert len(asked) == lifted


WAY = '[{"dev": "eth0", "gateway": "192.0.2.254"}]'
INTO = "10.20.0.0/16 dev eth0 src 10.99.0.7 proto 202"
THERE = '[{"dst": "10.20.0.0/16", "dev": "eth0", "prefsrc": "10.99.0.7", "protocol": "202"}]'


class Led(Kernel):
    """With routes, and a way to the peer or none."""

    def ip(self, *arguments, said=""):
        answer = self.listed.get(arguments[-3] if "get" in arguments else arguments[-1])
        if said or answer is None:
            return super().ip(*arguments, said=said)
        return CompletedProcess(arguments, int(not answer), answer, "")


@pytest.mark.parametrize(
    ("there", "way", "told"),
    [("[]", WAY, [f"route prepend {INTO}"]), (THERE, WAY, []), ("[]", "", [])],
    ids=["gone", "there", "no way"],
)
def test_a_route_that_went_with_its_link_is_set_again(kernel_with, monkeypatch, there, way, told):
    policy = (
        f"src 10.99.0.7/32 dst 10.20.0.0/16 \\\tdir out priority {bundle.PRIORITY} \\"
        f"\ttmpl src 192.0.2.1 dst 192.0.2.2\\\t\tproto esp reqid {NEW} mode tunnel\n"
    )
    kernel = kernel_with(Led, policy=policy, **{"10.20.0.0/16": there, "192.0.2.2": way})
    monkeypatch.setattr(strongswan_tying, "reqids", lambda _: (NEW, NEW + 1))
    tying = Tying(Path("/nowhere"), Listing(Path("/nowhere")))
    half = {"local-host": "192.0.2.1", "remote-host": "192.0.2.2"}
    tying.lead_again("carnet-7", {"carnet-7": half})
    assert kernel.told == []
    tying.lead_again("carnet-7", {f"carnet-7{AH_HALF}": half})
    assert kernel.told == told
