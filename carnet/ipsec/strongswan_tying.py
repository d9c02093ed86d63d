"""AH and ESP as one tunnel with strongSwan, which negotiates each half by itself.

What ties them together are the kernel's policies, of carnet.ipsec.bundle: which of them, and
whose, the daemon's reports tell.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from carnet.errors import DaemonGoneError
from carnet.ipsec import bundle as bundles
from carnet.ipsec.bundle import Bundle
from carnet.ipsec.driver import Keep
from carnet.ipsec.iproute import NoWayError
from carnet.ipsec.spec import Mode, Role, TunnelSpec
from carnet.ipsec.strongswan_listing import Listing
from carnet.ipsec.strongswan_parts import (
    AH_HALF,
    ESP_HALF,
    ah_mode,
    is_half,
    is_ours,
    part_of,
    reqids,
    tunnel_of,
)
from carnet.ipsec.strongswan_reports import Report, is_live, is_up, live_child, newest_parts
from carnet.ipsec.strongswan_theirs import NOTHING, Theirs
from carnet.ipsec.vici_link import open_session, text
from carnet.objectives import Objective


class Tying:
    """The policies of the tunnels that have halves.

    Who puts some into the kernel, or finds which are left, does so alone: no policy is another
    tunnel's by the time that it goes.
    """

    def __init__(self, socket: Path, listed: Listing) -> None:
        self._socket = socket
        self._listed = listed
        self._alone = threading.Lock()

    @contextmanager
    def halves_blocked(self, spec: TunnelSpec) -> Iterator[None]:
        """Block at Target what comes by one half alone, before a Client can bring one up.

        That is while they are loaded: until then none tells that the block is wanted.

        Raises IPsecError if the kernel refuses.
        """
        if spec.role is not Role.TARGET or spec.objective is not Objective.AH_ESP:
            yield
            return
        with self._alone:
            bundles.block_halves()
            yield

    def unblock_halves(self) -> None:
        """Take that block away if no tunnel is left that has halves.

        With a daemon that is gone all have lost theirs, but for what is in the kernel.
        """
        with self._alone:
            if not self._has_halves():
                bundles.unblock_halves()

    def _has_halves(self) -> bool:
        try:
            with open_session(self._socket) as session:
                names = text(session.get_conns())["conns"]
            names += [name for name, _ in self._listed.settled_sas()]
        except DaemonGoneError:
            return False
        return any(is_ours(name) and is_half(name) for name in names)

    def tie(self, spec: TunnelSpec, live: Mapping[str, Report]) -> None:
        """Tie the halves of a tunnel together, if it has any; `live` are its parts.

        Raises IPsecError if the kernel refuses.
        """
        if spec.objective is Objective.AH_ESP:
            with self._alone:
                bundles.install(agreed(spec, live))

    def lead_again(self, name: str, live: Mapping[str, Report]) -> None:
        """Set the routes of a Client's tunnel that are gone, if it has halves; `live` as in tie().

        Raises IPsecError.
        """
        ike_sa = live.get(name + AH_HALF)
        if ike_sa is None:
            return
        # Without a way there is nothing to lead; whoever hears of one comes again.
        with self._alone, suppress(NoWayError):
            bundles.lead_again(reqids(name)[0], ike_sa["local-host"], ike_sa["remote-host"])

    def untie(self, name: str, kept: Callable[[], Theirs] = lambda: NOTHING) -> None:
        """Take out a tunnel's policies; where another is for the same, it takes them over.

        What is `kept` by other tunnels of the daemon stays, whatever its request id.
        Raises IPsecError if the kernel keeps some.
        """
        with self._alone:
            others = partial(self._between_hosts, lambda other: other != name)
            asked = cache(kept)
            bundles.remove(reqids(name)[0], others, lambda policy: asked().has_policy(policy))

    def sweep(self, keep: Keep) -> None:
        """Take out the policies of every tunnel that is not to be kept; raises IPsecError."""
        with self._alone:
            blocked = bundles.sweep(
                lambda: {reqids(name)[0] for name in keep()},
                lambda: self._between_hosts(keep().__contains__),
            )
        if blocked:
            self.unblock_halves()

    def _between_hosts(self, concerns: Callable[[str], bool]) -> list[Bundle]:
        """Return what ties tunnels between two hosts together, of some names, oldest first."""
        found = [
            (part, sa)
            for part, sa in self._listed.settled_sas()
            if is_ours(part) and concerns(tunnel_of(part))
        ]
        return between_hosts(newest_parts(found))


def agreed(spec: TunnelSpec, sas: Mapping[str, Report]) -> Bundle:
    """Return what ties the halves of a tunnel together, now that the addresses are known."""
    ike_sa = next(iter(sas.values()))
    here, there = _host(ike_sa["local-host"]), _host(ike_sa["remote-host"])
    return Bundle(
        role=spec.role,
        mode=spec.mode,
        ah_mode=ah_mode(spec),
        selectors=_selectors(spec, here, there),
        **_ends(spec.name, ike_sa),
    )


def between_hosts(sas: Mapping[str, Report]) -> list[Bundle]:
    """Return what ties each tunnel of AH and ESP together that stands in transport mode.

    `sas` are the newest IKE_SAs by connection name, in the order of their making.
    """
    return [
        _between_hosts(tunnel_of(name), ike_sa)
        for name, ike_sa in sas.items()
        if part_of(name) == AH_HALF
        and is_up(name, ike_sa)
        and _is_transport(sas.get(tunnel_of(name) + ESP_HALF, {}))
    ]


def _is_transport(ike_sa: Report) -> bool:
    child = live_child(ike_sa) or {}
    return is_live(ike_sa) and child.get("mode", "").lower() == Mode.TRANSPORT


def _between_hosts(name: str, ike_sa: Report) -> Bundle:
    return Bundle(
        role=Role.TARGET,  # which end it is counts for routes alone, and there is none
        mode=Mode.TRANSPORT,
        ah_mode=Mode.TRANSPORT,
        selectors=((_host(ike_sa["local-host"]), _host(ike_sa["remote-host"])),),
        **_ends(name, ike_sa),
    )


def _ends(name: str, ike_sa: Report) -> dict[str, Any]:
    esp_reqid, ah_reqid = reqids(name)
    return {
        "local_address": ike_sa["local-host"],
        "remote_address": ike_sa["remote-host"],
        "esp_reqid": esp_reqid,
        "ah_reqid": ah_reqid,
    }


def _selectors(spec: TunnelSpec, local: str, remote: str) -> tuple[tuple[str, str], ...]:
    """Return which packets the two halves protect: here and there."""
    if spec.virtual_address is None:
        return ((local, remote),)
    inside = _host(spec.virtual_address)
    here, there = spec.local_networks or (inside,), spec.remote_networks or (inside,)
    return tuple((one, other) for one in here for other in there)


def _host(address: str) -> str:
    return str(ip_network(address))
