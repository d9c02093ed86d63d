"""What the tests of carnet-helper share: two users, a tunnel, and a daemon that has no others."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import SimpleNamespace

import msgspec
import pytest

from carnet.errors import IPsecError
from carnet.ipsec import block
from carnet.ipsec.driver import Change, Lead, TunnelEvent
from carnet.ipsec.helper import messages as say
from carnet.ipsec.spec import TunnelSpec
from carnet.ipsec.surroundings import Surroundings
from tests.unit.tunnels import CLIENT

ALICE, MALLORY = 1001, 1002
NAME = "carnet-" + "0a" * 16
OTHER = "carnet-" + "0b" * 16
THIRD = "carnet-" + "0c" * 16
SERVERS = ("10.20.0.10",)
OWN_ADDRESS = "192.168.7.7"
AROUND = Surroundings(
    on_link=(ip_network("192.168.7.0/24"),),
    beyond=(ip_network("10.50.0.0/16"),),
    gateways=frozenset({ip_address("10.1.1.1")}),
    name_servers=frozenset({ip_address("10.1.1.53")}),
)

SPEC = replace(
    CLIENT,
    name=NAME,
    local_identity="c-00112233445566778899.carnet",
    remote_identity="t-00112233445566778899.carnet",
    esp_proposals=("aes256gcm16",),
    virtual_address="10.99.0.2",
    ppk_id="p-00112233445566778899.carnet",
)


def named(name, **changes):
    """Return that tunnel by another name, with what goes with it."""
    chance = name.removeprefix("carnet-")
    ends = {"local_identity": f"c-{chance}.carnet", "remote_identity": f"t-{chance}.carnet"}
    return replace(SPEC, **{"name": name, **ends, "ppk_id": f"p-{chance}.carnet"} | changes)


AWAY = {"remote_networks": ("10.30.0.0/16",), "virtual_address": "10.98.0.2"}
"""Of a tunnel that has nothing to do with that one."""


def standing(spec, **differs):
    """Return what a daemon reports of a tunnel."""
    (remote_address,) = spec.remote_addresses
    return SimpleNamespace(
        **{
            "name": spec.name,
            "established": True,
            "virtual_address": spec.virtual_address,
            "remote_address": remote_address,
            "other_peers": (),
            "sas": 2,
            "local_selectors": (f"{spec.virtual_address}/32",),
            "remote_selectors": spec.remote_networks,
        }
        | differs
    )


class Daemon:
    """Stands for the IPsec daemon and the packet filter: the helper alone is on trial here."""

    name = "packets"

    def __init__(self):
        self.tunnels: dict[str, TunnelSpec] = {}
        self.blocks: dict[str, block.Closed] = {}
        self.ended: list[str] = []
        self.fitted: list[tuple[str, str, int, set[str]]] = []
        self.servers: tuple[str, tuple[str, ...]] | None = None
        self.gives = SPEC.virtual_address
        self.narrowed: dict[str, tuple[str, ...]] = {}
        self.resolve = False
        self.taking: list[str] = []

    def capabilities(self):
        return type("Found", (), {"userspace": False, "uses_assigned_servers": self.resolve})

    def taking_our_keys(self):
        return self.taking

    def install(self, spec):
        self.tunnels[spec.name] = spec

    def up(self, spec):
        return spec.name

    confirm = up

    def forget_secrets(self, name):
        self.ended.append(f"secrets of {name}")

    def down(self, name):
        self.ended.append(name)
        self.tunnels.pop(name, None)

    def status(self):
        return [standing(spec) for spec in list(self.tunnels.values())]

    def installed(self):
        return frozenset(self.tunnels)

    resumable = remembered = installed

    def leads(self):
        return {
            name: Lead(
                targets=frozenset(spec.remote_addresses),
                networks=frozenset(spec.remote_networks),
                inner=frozenset(filter(None, {spec.virtual_address})),
                identities=frozenset(
                    filter(None, {spec.local_identity, spec.remote_identity, spec.ppk_id})
                ),
            )
            for name, spec in self.tunnels.items()
        }

    def take_leave(self, name):
        self.ended.append(f"leave of {name}")
        return True

    def resume(self, name):
        self.ended.append(f"another negotiation of {name}")
        return standing(self.tunnels[name], virtual_address=self.gives, **self.narrowed)

    def lead_again(self, name):
        self.ended.append(f"routes of {name}")

    def watch(self):
        return iter([TunnelEvent(name, Change.DOWN) for name in (NAME, OTHER)])

    def works(self):
        return True

    def close(self, closed=None):
        if closed is not None:
            self.blocks[closed.name] = closed

    def lift(self, name):
        self.ended.append(f"block of {name}")
        self.blocks.pop(name, None)

    def names(self):
        return frozenset(self.blocks)

    def held_back(self):
        return {
            name: block.HeldBack(
                networks=frozenset(closed.networks),
                targets=frozenset(closed.targets),
                hosts=frozenset(closed.hosts),
            )
            for name, closed in self.blocks.items()
            if closed is not None
        }

    def fit(self, name, address, mtu, peers, networks):
        self.fitted.append((name, address, mtu, peers, networks))

    def use_servers(self, name, servers):
        self.servers = (name, servers)

    def follow_servers(self, name):
        self.ended.append(f"servers of {name}")

    def whose_servers(self):
        return self.servers and self.servers[0]

    def restore_servers(self, name):
        if self.whose_servers() == name:
            self.servers = None
            return True
        return False


def spec(**changes):
    """Return the message, changed behind the back of whoever makes it."""
    made = say.to_message(named(changes["name"]) if "name" in changes else SPEC)
    return msgspec.structs.replace(made, **changes)


def block_of(name=NAME, **changes):
    facts = {"networks": ("10.20.0.0/16",), "targets": ("198.51.100.2",), "hosts": ()}
    return say.Block(name=name, **(facts | changes))


def refused(service, uid, call):
    with pytest.raises(IPsecError) as caught:
        service.obey(uid, call)
    return caught.value.sentence
