"""Taking a tunnel out of strongSwan's daemon and the kernel: its secrets alone, or all of it."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog
from tenacity import retry_if_exception_type
from vici import Session
from vici.exception import CommandException

from carnet import crash
from carnet.errors import DaemonGoneError, IPsecError
from carnet.ipsec import strongswan_counters as counters
from carnet.ipsec import strongswan_leftovers as leftovers
from carnet.ipsec import strongswan_messages as messages
from carnet.ipsec import strongswan_theirs as theirs
from carnet.ipsec.driver import Keep
from carnet.ipsec.forsaken import ended
from carnet.ipsec.strongswan_addresses import OwnAddresses
from carnet.ipsec.strongswan_listing import Listing, own_addresses, settling
from carnet.ipsec.strongswan_negotiation import Negotiation
from carnet.ipsec.strongswan_parts import connection_names, is_half, tunnel_of
from carnet.ipsec.strongswan_reports import Report
from carnet.ipsec.strongswan_theirs import Theirs
from carnet.ipsec.strongswan_tunnels import Tunnels
from carnet.ipsec.strongswan_tying import Tying
from carnet.ipsec.vici_link import open_session, text

log = structlog.get_logger()


class Removing:
    """What leaves nothing of a tunnel; to take out what is not there is no error."""

    def __init__(
        self,
        socket: Path,
        listed: Listing,
        tunnels: Tunnels,
        negotiation: Negotiation,
        tying: Tying,
        addresses: OwnAddresses,
    ) -> None:
        self._socket = socket
        self._listed = listed
        self._tunnels = tunnels
        self._negotiation = negotiation
        self._tying = tying
        self._addresses = addresses
        self._kept_pools: set[str] = set()
        """Which the daemon did not unload, though nothing had an address of them."""

    def forget_secrets(self, name: str) -> None:
        """Take its pre-shared keys out of the daemon; see Driver.forget_secrets().

        An IKEv1 connection by which anybody may come goes too: the next one to come is
        another traveller, whom nothing but her key tells apart.
        """
        awaited = self._listed.awaited_in_main_mode(name)
        with open_session(self._socket) as session:
            _unload_keys(session, name)
            if name in awaited:
                session.unload_conn({"name": name})

    def down(self, name: str) -> None:
        """End it and remove all of it; see Driver.down()."""
        try:
            loaded = self._shut(name)
            # Listed or not: see Negotiation.end_at_once().
            self._negotiation.end(*connection_names(name))
        except DaemonGoneError as error:
            clean = leftovers.take_out(name)
            with suppress(IPsecError):  # it is for all tunnels, and goes with another's end, too
                self._tying.unblock_halves()
            raise ended(error, clean=clean) from error
        except IPsecError:
            # One that never answers again takes nothing out of the kernel any more.
            leftovers.remove(name)
            raise
        crash.reach("ipsec.terminated")
        give_up_shared = self._addresses.give_up(name)
        loaded += self._unload_connections(name)
        give_up_shared()
        # It may have been missed as its peer rekeyed: see Listing.agreed_parts().
        self._negotiation.end_at_once(*connection_names(name))
        self._forget_counted(loaded)
        self._unload_pool(name)
        self._take_out_of_kernel(name, loaded)

    def _shut(self, name: str) -> list[str]:
        """Have no IKE_SA come up any more; return which connections were unloaded for that.

        One that lives is ended afterwards: a peer who hears no end could negotiate anew until
        then, as fast as she is ended. A connection that alone tells which address inside its
        Client has set stays until that is gone; nobody can come by it.
        """
        own = own_addresses(self._listed.connections(name))
        loaded = [] if own else self._unload_connections(name)
        with open_session(self._socket) as session:
            _unload_keys(session, name)
        return loaded

    def _unload_connections(self, name: str) -> list[str]:
        """Unload all of the tunnel; return which there were."""
        with open_session(self._socket) as session:
            loaded = [c for c in text(session.get_conns())["conns"] if tunnel_of(c) == name]
            for connection in loaded:
                _unload_connection(session, connection)
                crash.reach("ipsec.connection-unloaded")
        return loaded

    def _forget_counted(self, connections: list[str]) -> None:
        """Once they have no IKE_SA any more: what that does is counted."""
        with open_session(self._socket) as session:
            for connection in connections:
                counters.forget(session, connection)

    def _unload_pool(self, name: str) -> None:
        """Unload its virtual address, as soon as it is leased no more.

        No IKE_SA has it any more that the daemon finds by name: one that it does not list would
        have kept the tunnel from ending. Where it is kept all the same, the daemon's accounts are
        wrong: strongSwan 5.9.8 never takes back all leases of an address that several IKE_SAs had.
        By a pool alone nobody comes, and other tunnels have pools of their own for the same
        address: so the tunnel has ended.
        """
        with open_session(self._socket) as session:
            if name not in session.get_pools({"name": name}):
                return
            try:
                self._patience(name)(session.unload_pool, {"name": name})
            except CommandException as error:
                if name not in self._kept_pools:
                    log.warning("pool-not-unloaded", tunnel=name, reason=str(error))
                self._kept_pools.add(name)
                return
        self._kept_pools.discard(name)
        crash.reach("ipsec.pool-unloaded")

    def _patience(self, name: str) -> Callable[..., object]:
        """Return what asks until the daemon has settled; once only where that was in vain."""
        refused = retry_if_exception_type(CommandException)
        return _once if name in self._kept_pools else settling(refused)

    def _take_out_of_kernel(self, name: str, loaded: list[str]) -> None:
        """Take out what the daemon has left there, of which it had these connections."""
        kept = partial(self._theirs, name)
        if not loaded:
            others = partial(self._tunnels.leads_of_others, name)
            leftovers.remove(name, self._pairs, others, kept)
            self._addresses.take_forsaken()
        if name not in loaded:
            # Last, so that nothing of it leaves in clear while an SA of it is left. What is one
            # connection, of that name, has no policies of ours.
            self._tying.untie(name, kept)
        if not loaded or any(map(is_half, loaded)):
            # The daemon says that it has ended them a moment before they are out of the kernel.
            leftovers.remove_sas(name, kept)
            self._tying.unblock_halves()

    def _pairs(self) -> set[tuple[str, str]]:
        """Return between which addresses there are IKE_SAs: this machine's, and the peer's."""
        return {(sa["local-host"], sa["remote-host"]) for _, sa in self._listed_twice()}

    def _theirs(self, name: str) -> Theirs:
        """Return what of the kernel is of the daemon's other tunnels."""
        return theirs.of(sa for part, sa in self._listed_twice() if tunnel_of(part) != name)

    def _listed_twice(self) -> list[tuple[str, Report]]:
        """Return all IKE_SAs: one listing may miss one that is rekeyed (Listing.agreed_parts())."""
        return [*self._listed.sas(), *self._listed.sas()]

    def sweep(self, keep: Keep) -> list[str]:
        """Remove whatever of ours is not to be kept; return the names removed."""
        installed = self._tunnels.installed()
        doomed = sorted(installed - keep())
        for name in doomed:
            self.down(name)
        self._tying.sweep(keep)
        self._addresses.sweep(keep)
        return doomed


def _unload_connection(session: Session, connection: str) -> None:
    """Unload it; who ends a tunnel and who watches over it may do so at the same time."""
    try:
        session.unload_conn({"name": connection})
    except CommandException:
        if connection in text(session.get_conns())["conns"]:
            raise


def _once(order: Callable[..., object], *about: object) -> object:
    return order(*about)


def _unload_keys(session: Session, name: str) -> None:
    for key_id in messages.key_ids(name):
        session.unload_shared({"id": key_id})
