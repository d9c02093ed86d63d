"""The floor of a connection: strongSwan's own tunnel, and the bare operations on a token.

It is in the network of an office, between the same daemons as Carnet's, with a pre-shared
key that both ends have loaded.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from carnet.ipsec.spec import Mode, Role, TunnelSpec
from carnet.ipsec.strongswan import StrongSwan
from carnet.objectives import Objective
from carnet.token.finding import find_module
from lab.charon import VICI
from lab.network import TARGET_ADDRESS, WORK_NETWORK
from lab.office import HOST_URL, Office, pipes
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare

BARE = "carnet-f100f100f100f100"
"""The connection's name."""


@contextmanager
def bare_tunnel(office: Office, pairs: int) -> Iterator[Callable[[], dict[str, float]]]:
    """Load the connection at both ends, fill a token of its own; give what connects once.

    That returns milliseconds: of all, and by step.
    """
    with bare_connection(office):
        floor = _Floor(office)
        floor.run("make", str(pairs))
        yield floor.connect


@contextmanager
def bare_connection(office: Office) -> Iterator[None]:
    """Have a connection of strongSwan's alone loaded at both ends."""
    drivers = [StrongSwan(each.vici) for each in (office.client_charon, office.target_charon)]
    for driver, spec in zip(drivers, _ends(), strict=True):
        driver.install(spec)
    try:
        yield
    finally:
        for driver in drivers:
            driver.down(BARE)


class _Floor:
    """The floor's program on the Client, and its token."""

    def __init__(self, office: Office) -> None:
        self._client = office.world.client
        self._pin = secrets.token_hex(4)
        place = self._client.directory / "floor"
        self._environment = {
            CONFIGURATION_VARIABLE: str(prepare(place)),
            "BENCH_MODULE": str(find_module(None)),
        }
        office.command(
            self._client, "carnet-provision", "token-init", "--label", "floor",
            given={"pin": self._pin, "so-pin": secrets.token_hex(4)}, extra=self._environment,
        )  # fmt: skip

    def run(self, *arguments: str) -> str:
        """Run the program; the PIN goes through a pipe."""
        with pipes({"pin": self._pin}) as (options, fds):
            extra = self._environment | {"BENCH_PIN_FD": options[-1]}
            argv = ["python", "-m", "bench.floor_connect", *arguments]
            return self._client.run(argv, extra=extra, pass_fds=fds).stdout

    def connect(self) -> dict[str, float]:
        """Bring the tunnel up and down; return how long the program took, and its steps."""
        uri = f"unix://{VICI}"
        started = time.monotonic()
        steps: dict[str, Any] = json.loads(self.run("connect", HOST_URL, uri, BARE))
        ended = time.monotonic()
        self._client.run(["swanctl", "--terminate", "--uri", uri, "--ike", BARE])
        loaded, end = 1000 * (steps.pop("begun") - started), 1000 * (ended - steps.pop("over"))
        return {"all": 1000 * (ended - started), "load": loaded, **steps, "end": end}


def _ends() -> tuple[TunnelSpec, TunnelSpec]:
    client = TunnelSpec(
        name=BARE,
        role=Role.CLIENT,
        objective=Objective.ESP,
        mode=Mode.TUNNEL,
        ike_version=2,
        local_addresses=(),
        remote_addresses=(TARGET_ADDRESS,),
        local_identity="client-floor",
        remote_identity="target-floor",
        ike_proposals=("aes256gcm16-prfsha256-x25519",),
        esp_proposals=("aes256gcm16-x25519",),
        ah_proposals=(),
        local_networks=(),
        remote_networks=(WORK_NETWORK,),
        virtual_address="10.99.0.200",
        psk=secrets.token_bytes(32),
        ppk=None,
        ppk_id=None,
        force_udp=False,
        lifetime=36000,
    )
    target = replace(
        client, role=Role.TARGET, remote_addresses=(), local_identity="target-floor",
        remote_identity="client-floor", local_networks=(WORK_NETWORK,), remote_networks=(),
    )  # fmt: skip
    return client, target
