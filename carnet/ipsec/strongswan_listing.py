"""What strongSwan's daemon has loaded, and what lives, as it lists them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenacity import (
    RetryCallState,
    Retrying,
    retry_base,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)
from tenacity.wait import wait_base

from carnet.ipsec import strongswan_reports as reports
from carnet.ipsec.spec import TunnelSpec
from carnet.ipsec.strongswan_parts import connection_names, tunnel_of
from carnet.ipsec.strongswan_shortfalls import missing_parts
from carnet.ipsec.vici_link import open_session, text

SETTLE_TIME_LIMIT = 2.0
"""Seconds for what the daemon does within milliseconds, yet not in one step: a rekeyed
IKE_SA handing over to its successor, the lease of an ended one coming back."""
_LOOKS = wait_fixed(0.02)
"""Between two looks whether it has."""


class Listing:
    """The daemon's lists, by its VICI socket; every look is made anew."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def connections(self, *names: str) -> dict[str, dict[str, Any]]:
        """Return how the daemon lists its connections, by name: these, or all."""
        with open_session(self._socket) as session:
            listed = [text(c) for each in _wanted(names) for c in session.list_conns(each)]
        return {name: connection for each in listed for name, connection in each.items()}

    def peers(self, *tunnels: str) -> dict[str, Sequence[str]]:
        """Return at which addresses the peer is expected, as far as it is loaded.

        It is by tunnel: of these, or of all.
        """
        names = [name for tunnel in tunnels for name in connection_names(tunnel)]
        listed = self.connections(*names).items()
        return {tunnel_of(name): connection["remote_addrs"] for name, connection in listed}

    def awaited_in_main_mode(self, *names: str) -> list[str]:
        """Return by which connections anybody may come with IKEv1: of these, or of all."""
        listed = self.connections(*names).items()
        return [name for name, conn in listed if reports.is_open_main_mode(conn)]

    def own_addresses_of(self, names: frozenset[str]) -> list[str]:
        """Return the virtual addresses that Clients have set by themselves, of these tunnels."""
        loaded = self.connections().items()
        return own_addresses({name: each for name, each in loaded if name in names})

    def parts_of(self, name: str) -> dict[str, Any]:
        """Return the newest live IKE_SAs of a tunnel, by connection name."""
        return reports.newest_parts(self.settled_sas(*connection_names(name)))

    def agreed_parts(self, spec: TunnelSpec) -> dict[str, Any]:
        """Return parts_of() a tunnel that came up, as soon as all parts agreed are up.

        A listing may miss a tunnel that is rekeyed meanwhile: the old IKE_SA is gone, and its
        successor is entered where the daemon has looked already.
        """
        incomplete = retry_if_result(lambda live: bool(missing_parts(spec, live)))
        found: dict[str, Any] = settling(incomplete)(self.parts_of, spec.name)
        return found

    def settled_sas(self, *names: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the IKE_SAs as sas() does, none of them just handing over."""
        return settling(retry_if_result(reports.is_handing_over))(self.sas, *names)

    def sas(self, *names: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the IKE_SAs of these connections, or all, in the order of their making.

        Those of one tunnel are asked for by name: of many, reading the report takes longest.
        """
        with open_session(self._socket) as session:
            reported = [text(sa) for each in _wanted(names) for sa in session.list_sas(each)]
        sas = [item for sa in reported for item in sa.items()]
        return sorted(sas, key=lambda item: int(item[1]["uniqueid"]))


def own_addresses(connections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the virtual addresses that Clients have set by themselves."""
    return [each for listed in connections.values() for each in reports.own_address(listed)]


def _wanted(names: Sequence[str]) -> list[dict[str, str]]:
    """Return what to list: one after the other of these connections, or all at once."""
    return [{"ike": name} for name in names] or [{}]


def settling(condition: retry_base, pauses: wait_base = _LOOKS) -> Retrying:
    """Look or try again as long as the daemon has not settled; then take it as it is."""
    return Retrying(
        retry=condition,
        stop=stop_after_delay(SETTLE_TIME_LIMIT),
        wait=pauses,
        retry_error_callback=_as_it_is,
    )


def _as_it_is(state: RetryCallState) -> Any:
    return state.outcome.result() if state.outcome else None
