"""The virtual address where IKE assigns none and it is set from here: a Client's with IKEv1."""

import shutil
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from carnet.ipsec import inner_address
from carnet.ipsec.driver import Keep
from carnet.ipsec.iproute import way_to
from carnet.ipsec.spec import TunnelSpec
from carnet.ipsec.strongswan_listing import Listing, own_addresses
from carnet.ipsec.strongswan_tunnels import Tunnels

_OWN_INTERFACE = "lo"
"""That of the addresses inside which are set from here."""


class OwnAddresses:
    """The virtual addresses of tunnels, as they are set and taken away."""

    def __init__(self, listed: Listing, tunnels: Tunnels) -> None:
        self._listed = listed
        self._tunnels = tunnels
        self._set: dict[str, str] = {}
        """Which were set from here, by their tunnels' names."""

    def install(self, spec: TunnelSpec, ike_sa: dict[str, Any]) -> None:
        """Set that of a tunnel whose IKE_SA stands.

        At no interface of the way to Target: charon's own routes lead there.
        """
        way = way_to(ike_sa["local-host"], ike_sa["remote-host"])
        address = spec.virtual_address or ""
        try:
            inner_address.install(address, spec.remote_networks, _OWN_INTERFACE, way)
        finally:
            self._set[spec.name] = address

    def give_up(self, name: str) -> Callable[[], object]:
        """Take away those of a tunnel; return what does so again.

        That is for the ones that others have as well: it is to be called once the daemon has
        no connection of the tunnel any more.
        """
        own = own_addresses(self._listed.connections(name))
        # One that was set as another down() took the connection out is listed no more.
        set_here = self._set.pop(name, None)
        shared = self._give_up({*own, *filter(None, [set_here])}, name, set_here)
        # Of tunnels that end at the same time each was another's to the other until then.
        return partial(self._give_up, shared, name, set_here)

    def _give_up(self, addresses: Iterable[str], name: str, set_here: str | None) -> list[str]:
        """Take them away; return those that others have as well.

        What nobody has set for it, as it never came up, is another's: a route of ours tells, or
        that it was set here, perhaps without.
        """
        own = list(addresses)
        others = self._tunnels.leads_of_others(name) if own else ()
        at = {set_here: (_OWN_INTERFACE,)}
        return [each for each in own if not inner_address.remove(each, others, at.get(each, ()))]

    def take_forsaken(self) -> None:
        """Take away those of which the daemon has no tunnel: it was killed, and started anew."""
        if shutil.which("ip") is None:
            return  # then nobody has set any
        inner_address.sweep(lambda: own_addresses(self._listed.connections()), _OWN_INTERFACE)

    def sweep(self, keep: Keep) -> None:
        """Take away those of every tunnel that is not to be kept."""
        inner_address.sweep(lambda: self._listed.own_addresses_of(keep()))
