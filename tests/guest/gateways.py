"""The driver on two machines of a network without NAT, and tunnels of every kind between them."""

import re
import secrets
import subprocess
from contextlib import AbstractContextManager
from dataclasses import replace

from carnet.ipsec import bundle, xfrm
from carnet.ipsec.spec import AhHalf, Mode, Role, TunnelSpec
from carnet.ipsec.strongswan_parts import reqids
from carnet.objectives import Objective
from lab.machine import Machine
from tests.guest.addresses import BY_VERSION
from tests.lab.conftest import Ends, Gateway
from tests.unit.tunnels import target_of

VIRTUAL = {4: "10.99.0.7", 6: "fd99::7"}
AH = ("sha256-x25519",)
ESP = ("aes256gcm16-x25519",)
_LOOK = "ip -o xfrm state; ip -o xfrm policy; ip -o address; ip route show table all"


def inside(gateway: Gateway) -> AbstractContextManager[None]:
    """Have the driver's `ip` run on that machine: the test itself is on none of them."""
    return gateway.machine.network()


def ends_of(
    objective: Objective, mode: Mode, *, outer: int = 4, inner: int = 4, ppk: bool = True
) -> Ends:
    """Make both ends of a tunnel with fresh keys and identities."""
    session = secrets.token_hex(8)
    tunnel = mode is Mode.TUNNEL
    client = TunnelSpec(
        name=f"carnet-{session}",
        role=Role.CLIENT,
        objective=objective,
        mode=mode,
        ike_version=2,
        local_addresses=(),
        remote_addresses=(BY_VERSION[outer].target,),
        local_identity=f"c-{session}",
        remote_identity=f"t-{session}",
        ike_proposals=("aes256gcm16-prfsha256-x25519",),
        esp_proposals=ESP if objective in (Objective.ESP, Objective.AH_ESP) else (),
        ah_proposals=AH if objective in (Objective.AH, Objective.AH_ESP) else (),
        local_networks=(),
        remote_networks=(BY_VERSION[inner].network,) if tunnel else (),
        virtual_address=VIRTUAL[inner] if tunnel else None,
        psk=secrets.token_bytes(32),
        ppk=secrets.token_bytes(32) if ppk else None,
        ppk_id=f"p-{session}" if ppk else None,
        force_udp=False,
        lifetime=3600,
    )
    if objective is Objective.AH_ESP:
        client = replace(client, ah_half=_half(session, ppk=ppk))
    return Ends(client, other_end(client))


def _half(session: str, *, ppk: bool) -> AhHalf:
    return AhHalf(
        local_identity=f"ah-c-{session}",
        remote_identity=f"ah-t-{session}",
        psk=secrets.token_bytes(32),
        ppk=secrets.token_bytes(32) if ppk else None,
        ppk_id=f"ah-p-{session}" if ppk else None,
    )


def other_end(client: TunnelSpec) -> TunnelSpec:
    """Return the Target's end of the same tunnel."""
    half = client.ah_half
    if half is not None:
        half = replace(
            half, local_identity=half.remote_identity, remote_identity=half.local_identity
        )
    return replace(target_of(client), local_addresses=client.remote_addresses, ah_half=half)


def install(client: Gateway, target: Gateway, ends: Ends) -> None:
    with inside(target):
        target.driver.install(ends.target)
    with inside(client):
        client.driver.install(ends.client)


def connect(client: Gateway, target: Gateway, ends: Ends) -> None:
    """Bring a tunnel up, confirmed at both ends."""
    install(client, target, ends)
    with inside(client):
        client.driver.up(ends.client)
    with inside(target):
        target.driver.confirm(ends.target)


def end(gateway: Gateway, name: str) -> None:
    with inside(gateway):
        gateway.driver.down(name)


def run_in_network(machine: Machine, *argv: str, said: str | None = None) -> str:
    """Run a program in a machine's network alone: a third of what it takes to be in all of it."""
    with machine.network():
        return subprocess.run(
            argv, input=said, check=True, stdout=subprocess.PIPE, text=True
        ).stdout


def ip(gateway, *arguments: str, said: str | None = None) -> str:
    return run_in_network(gateway.machine, "ip", *arguments, said=said)


def policies(gateway) -> str:
    return ip(gateway, "xfrm", "policy", "list")


def directions(gateway, name: str) -> set[str]:
    """For which directions there are policies that tie the halves of a tunnel: in, out, fwd."""
    listed = xfrm.policies(ip(gateway, "-o", "xfrm", "policy", "list").splitlines())
    ours = (each for each in listed if each.priority == bundle.PRIORITY)
    return {each.direction for each in ours if each.reqid == reqids(name)[0]}


def spis(gateway) -> set[str]:
    return set(re.findall(r"spi (0x[0-9a-f]+)", ip(gateway, "xfrm", "state")))


def end_at(gateway, client, ends: Ends):
    return ends.client if gateway is client else ends.target


def in_kernel(machine: Machine) -> str:
    """Return all that a tunnel has in a machine's kernel, or could leave there: sorted lines.

    A daemon that begins anew makes policies of its sockets, which come elsewhere in the order.
    """
    return "".join(sorted(run_in_network(machine, "sh", "-c", _LOOK).splitlines(keepends=True)))
