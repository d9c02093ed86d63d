"""An office in a network without NAT, with IPv4 and IPv6, that may have every objective."""

import json
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, closing
from subprocess import CompletedProcess
from typing import Any

from carnet.files import write_private
from lab.capture import Capture
from lab.machine import Machine
from lab.network import (
    TARGET_ADDRESS,
    TARGET_ADDRESS_V6,
    VIRTUAL_NETWORK_V6,
    WORK_NETWORK,
    WORK_NETWORK_V6,
)
from lab.office import USER
from lab.ordinary import GROUP
from lab.pluto import Pluto
from tests.guest.addresses import BY_VERSION, Addresses
from tests.guest.traffic import Watched, watched
from tests.lab.ordinary_offices import OrdinaryAtWork

OBJECTIVES = ("native", "ah", "esp", "ah+esp")

GATE = """
[gate]
outside = ["eth0"]
ports = [80]
firewall = "iptables"
"""

_AT_V4 = f'addresses = ["{TARGET_ADDRESS}"]'
_AT_BOTH = f'addresses = ["{TARGET_ADDRESS}", "{TARGET_ADDRESS_V6}"]'


class OpenOffice(OrdinaryAtWork):
    """What every test of a file shares; `outer` is the IP version that Target is found at."""

    outer = 4
    profile = 'profile = "modern"'
    capture: Capture
    confined = (
        *("setpriv", f"--regid={GROUP}", "--clear-groups", "--inh-caps=-all"),
        *("--bounding-set=-all,+net_admin,+net_raw", "--no-new-privs", "--"),
    )
    """With the group and the capability of its unit, and what iptables needs."""

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
        return {"CARNET_CLIENT_CONFIG": str(path)}

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

    def clear(self) -> None:
        """End what a test that failed has left at either end, and show Target's logs of it.

        Where it left nothing, at once.
        """
        if not self._live_ids():
            return
        for log in self.world.target.directory.glob("*.log"):
            sys.stdout.write(f"{log.name} ends: {log.read_text(errors='replace')[-4000:]}\n")
        self.carnet("disconnect")
        for request_id in self._live_ids():
            self.target("tunnels", "end", request_id)

    def _live_ids(self) -> list[str]:
        """Return which tunnels live by Target's records; without a program of its own."""
        path = self.world.target.directory / "var" / "target.sqlite"
        live = "SELECT hex(request_id) FROM tunnels WHERE state IN ('prepared', 'established')"
        with closing(sqlite3.connect(path)) as database:
            return [request_id.lower() for (request_id,) in database.execute(live)]

    def watched(self) -> AbstractContextManager["Watched"]:
        """Yield what has, afterwards, the packets that passed the router meanwhile."""
        return watched(self.capture)


def _hers(addresses: Addresses) -> tuple[str, str]:
    length = 128 if ":" in addresses.target else 32
    return addresses.network, f"{addresses.target}/{length}"
