"""An office in a network without NAT, with IPv4 and IPv6, that may have every objective."""

import json
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET, create_connection
from subprocess import CompletedProcess
from typing import Any

from carnet.files import write_private
from lab.capture import Capture
from lab.charon import Lane, choose_lane
from lab.guest import OUT
from lab.machine import Machine
from lab.network import (
    CLIENT_ADDRESS,
    CLIENT_ADDRESS_V6,
    ROUTED,
    SERVER_ADDRESS,
    SERVER_ADDRESS_V6,
    TARGET_ADDRESS,
    TARGET_ADDRESS_V6,
    VIRTUAL_NETWORK_V6,
    WORK_NETWORK,
    WORK_NETWORK_V6,
)
from lab.office import USER
from lab.packets import Packet, read_packets
from lab.pluto import Pluto
from lab.template import Template, in_use
from lab.world import World
from tests.guest.bridge import prepared
from tests.lab.offices import FILE, FILE_SERVER
from tests.lab.ordinary_offices import OrdinaryAtWork
from token_client.config import PATH_VARIABLE

_LOADED = (
    *("token_client.agent", "token_client.booklet", "token_client.connect", "token_client.nat"),
    *(
        "token_client.cli",
        "token_client.opening",
        "token_client.options",
        "token_client.status",
        "token_client.steps",
    ),
    *("target_agent.cli", "target_agent.service", "target_agent.server"),
    *("carnet.pin", "carnet.ipsec.strongswan", "sqlalchemy.dialects.sqlite.pysqlite"),
)
"""What the commands load, ours too: for the guest that is long. No more than they load, for
it copies slowly."""

PACKED = "office"
OBJECTIVES = ("native", "ah", "esp", "ah+esp")

GATE = """
[gate]
outside = ["eth0"]
ports = [80]
firewall = "iptables"
"""


@dataclass(frozen=True)
class Addresses:
    client: str
    target: str
    server: str
    network: str


BY_VERSION = {
    4: Addresses(CLIENT_ADDRESS, TARGET_ADDRESS, SERVER_ADDRESS, WORK_NETWORK),
    6: Addresses(CLIENT_ADDRESS_V6, TARGET_ADDRESS_V6, SERVER_ADDRESS_V6, WORK_NETWORK_V6),
}


_AT_V4 = f'addresses = ["{TARGET_ADDRESS}"]'
_AT_BOTH = f'addresses = ["{TARGET_ADDRESS}", "{TARGET_ADDRESS_V6}"]'


class OpenOffice(OrdinaryAtWork):
    """What every test of a file shares; `outer` is the IP version that Target is found at."""

    outer = 4
    profile = 'profile = "modern"'
    capture: Capture

    def configure(self) -> None:
        super().configure()
        path = self._target_file
        text = path.read_text()
        text = text.replace('# virtual_addresses_v6 = "', 'virtual_addresses_v6 = "')
        text = text.replace(f'["{WORK_NETWORK}"]', f'["{WORK_NETWORK}", "{WORK_NETWORK_V6}"]')
        path.write_text(text + GATE)
        assert f'"{VIRTUAL_NETWORK_V6}"' in text

    def carnet(
        self, *argv: str, extra: Mapping[str, str] | None = None, **changes: Any
    ) -> "CompletedProcess[str]":
        """Run the traveller's command; nothing watches over the token, unless `extra` says so."""
        return super().carnet(*argv, extra=self.unwatched() | (extra or {}), **changes)

    def unwatched(self) -> dict[str, str]:
        """Return what names the traveller's configuration by which nothing watches."""
        path = self.world.client.directory / "unwatched.toml"
        if not path.exists():
            write_private(path, b"agent = false\nresume = false\n")
        return {PATH_VARIABLE: str(path)}

    @property
    def _target_file(self):
        return self.world.target.directory / "etc" / "target.toml"

    def target_text(self) -> str:
        """Return Target's configuration."""
        return self._target_file.read_text()

    def reconfigure_file(self, old: str, new: str) -> None:
        text = self._target_file.read_text()
        assert old in text
        self._target_file.write_text(text.replace(old, new))

    def reconfigure(self, old: str, new: str) -> None:
        """Change Target's configuration, and start its agent again."""
        self.reconfigure_file(old, new)
        self.target_agent.stop()
        self.target_agent = self.serve_target()

    def be_found_at(self, version: int) -> None:
        """Have Target tell Clients its address of that IP version."""
        if version != self.outer:
            old, new = BY_VERSION[self.outer].target, BY_VERSION[version].target
            self.reconfigure(f'addresses = ["{old}"]', f'addresses = ["{new}"]')
            self.outer = version

    def have_profile(self, profile: str) -> None:
        """Have Target propose the algorithms of that profile."""
        if profile != self.profile:
            self.reconfigure(self.profile, profile)
            self.profile = profile

    def have_libreswan(self, machine: Machine) -> Pluto:
        """Have Libreswan run in the place of strongSwan, on Client or Target, from here on."""
        at_target = machine is self.world.target
        if at_target:
            self.target_agent.stop()
        (self.target_charon if at_target else self.client_charon).stop()
        pluto = Pluto(machine)
        pluto.start()
        if at_target:
            self.target_agent = self.serve_target()
        return pluto

    def valid_pairs(self) -> int:
        """Return how many pairs the Key Database holds valid; without a program of its own."""
        path = self.world.host.directory / "var" / "keys.sqlite"
        with closing(sqlite3.connect(path)) as database:
            (count,) = database.execute(
                "SELECT count(*) FROM key_pairs WHERE state = 'valid'"
            ).fetchone()
        return count

    def admit(self, **_) -> None:
        """Let alice have everything; nobody else is there."""
        self.reconfigure_file(_AT_V4, _AT_BOTH)
        for objective in OBJECTIVES:
            self.admit_to(objective, *(each for x in BY_VERSION.values() for each in _hers(x)))
        self.reconfigure_file(_AT_BOTH, _AT_V4)

    def admit_to(self, objective: str, *networks: str) -> None:
        options = [part for network in networks for part in ("--network", network)]
        self.target("users", "add", USER, "--objective", objective, "--lifetime", "8h", *options)

    def connect(self, *options: str, extra: dict[str, str] | None = None) -> dict:
        """Connect, wait until the tunnel stands at Target too, and return the facts."""
        done = self.carnet("connect", "--json", *options, extra=extra)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        request_id = facts["name"].removeprefix("carnet-")
        self.target_agent.wait_for_line(f'"{request_id}".*"event": "established"')
        return facts

    def end(self, facts: dict) -> None:
        """Disconnect, and wait until Target has heard of it."""
        assert self.carnet("disconnect").returncode == 0
        request_id = facts["name"].removeprefix("carnet-")
        self.target_agent.wait_for_line(f'"{request_id}".*"event": "ended"')

    def watched(self) -> AbstractContextManager["Watched"]:
        """Yield what has, afterwards, the packets that passed the router meanwhile."""
        return watched(self.capture)


@dataclass
class Watched:
    """What passed the router; `readable` is whether the file was to be read in it."""

    packets: list[Packet] = field(default_factory=list)
    readable: bool = False

    def kinds(self, one: str, other: str) -> set[str]:
        """What passed between two addresses, beside IKE."""
        return {p.kind for p in self.packets if p.is_between(one, other)} - {"IKE"}


@contextmanager
def watched(capture: Capture) -> Iterator[Watched]:
    """Yield what has, afterwards, the packets that were captured meanwhile."""
    found = Watched()
    capture.flush()
    start = capture.path.stat().st_size
    yield found
    capture.flush()
    found.packets += read_packets(capture.path, start)
    found.readable = FILE in capture.path.read_bytes()[start:]


def _hers(addresses: Addresses) -> tuple[str, str]:
    length = 128 if ":" in addresses.target else 32
    return addresses.network, f"{addresses.target}/{length}"


def fetch(machine: Machine, address: str, seconds: float = 4) -> bool:
    """Whether the file can be had from there; nothing of it is sent again later."""
    with machine.network(), suppress(OSError), create_connection((address, 80), seconds) as server:
        # Ended at once: a FIN that is sent again after its tunnel would be refused by ICMP.
        server.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        server.sendall(b"GET /plan.txt HTTP/1.0\r\n\r\n")
        with server.makefile("rb") as answer:
            return FILE in answer.read()
    return False


def prepare_office(directory: Path, pairs: int) -> None:
    """Outside: do once all that people do before the first connection."""
    with World() as world:
        office = OpenOffice(world, choose_lane())
        office.set_up(pairs)
        office.pack(directory / PACKED)


@contextmanager
def open_office(lane: Lane, file: str) -> Iterator[OpenOffice]:
    """Give the office that a test file has prepared, with a capture."""
    made = unwatched_office(lane, prepared(file))
    with made as office, Capture(office.world.router) as office.capture:
        yield office


@cache
def _template() -> Template:
    """Return the one of this boot, which ends with the guest: it takes long to load."""
    return Template(_LOADED)


@contextmanager
def unwatched_office(lane: Lane, place: Path = OUT) -> Iterator[OpenOffice]:
    """Give an office without a capture, for more traffic than one can follow."""
    with World(ROUTED) as world, in_use(_template()):
        office = OpenOffice(world, lane)
        office.unpack(place / PACKED)
        for machine in (world.server, world.target):
            (machine.directory / "plan.txt").write_bytes(FILE)
            # In both IP versions, as Linux has it.
            machine.start(["python", str(FILE_SERVER), "::", "80", str(machine.directory)])
            machine.wait_for_port(80)
        office.start()
        yield office
