"""The strongSwan driver: tunnels and secrets through VICI, nothing on disk."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from tenacity import retry_if_exception_type
from vici import Session
from vici.exception import CommandException

from carnet import crash
from carnet.errors import DaemonGoneError, IKESilentError, IPsecError
from carnet.ipsec import inner_address
from carnet.ipsec import strongswan_counters as counters
from carnet.ipsec import strongswan_leftovers as leftovers
from carnet.ipsec import strongswan_messages as messages
from carnet.ipsec import strongswan_others as others
from carnet.ipsec import strongswan_reports as reports
from carnet.ipsec.driver import Capabilities, Keep, Lead, TunnelEvent, TunnelStatus
from carnet.ipsec.forsaken import ended
from carnet.ipsec.iproute import way_to
from carnet.ipsec.main_mode import Turn
from carnet.ipsec.spec import TunnelSpec
from carnet.ipsec.strongswan_limits import (
    IKE_VERSIONS,
    cannot_carry,
    carried,
    refuse_what_cannot_be_carried,
)
from carnet.ipsec.strongswan_listing import Listing, own_addresses, settling
from carnet.ipsec.strongswan_negotiation import Negotiation
from carnet.ipsec.strongswan_parts import (
    Part,
    connection_names,
    is_half,
    is_ours,
    parts,
    tunnel_of,
)
from carnet.ipsec.strongswan_resuming import Resuming
from carnet.ipsec.strongswan_tying import Tying
from carnet.ipsec.vici_link import Events, accepts, find_socket, open_session, text
from carnet.ipsec.whole import all_or_nothing

IKE_TIME_LIMIT = 20.0
"""Seconds for one IKE negotiation: three retransmissions of strongSwan's (4, 7.2, 13 s)."""

_OWN_INTERFACE = "lo"
"""That of the addresses inside which are set from here."""

_WENT_DOWN = "The tunnel went down again as it came up; connect again."
_USERSPACE_ESP = "kernel-libipsec"
_RESOLVE = "resolve"
"""The plugin that sets whatever name server the peer assigns in IKE: see carnet.ipsec.assigned."""


class StrongSwan:
    """strongSwan's charon, at its VICI socket; every operation is a session of its own.

    `ike_time_limit` is in seconds. Safe to use from several threads.
    """

    name = "strongswan"
    resumes = True

    def __init__(self, socket: Path | None = None, ike_time_limit: float = IKE_TIME_LIMIT) -> None:
        self._socket = socket or find_socket()
        self._listed = Listing(self._socket)
        self._negotiation = Negotiation(self._socket, self._listed, ike_time_limit)
        self._resuming = Resuming(self._socket, self._listed, self._negotiation)
        self._watching: set[Events] = set()
        self._lock = threading.Lock()
        self._set: dict[str, str] = {}
        """Which virtual addresses were set from here, by their tunnels' names."""
        self._tying = Tying(self._socket, self._listed)
        self._turn = Turn(self._listed.awaited_in_main_mode, "it has come")

    def answers(self) -> bool:
        """Tell whether the daemon accepts this user at its socket."""
        return accepts(self._socket)

    def capabilities(self) -> Capabilities:
        """Ask the daemon and the kernel what they can carry."""
        with open_session(self._socket) as session:
            version = text(session.version())["version"]
            plugins = text(session.stats())["plugins"]
        userspace = _USERSPACE_ESP in plugins
        objectives, modes = carried(userspace=userspace)
        return Capabilities(
            driver=self.name,
            version=version,
            ike_versions=IKE_VERSIONS,
            objectives=objectives,
            modes=modes,
            ppk=True,
            userspace=userspace,
            uses_assigned_servers=_RESOLVE in plugins,
        )

    def install(self, spec: TunnelSpec) -> None:
        """Give the daemon the tunnel and its secrets, in memory only.

        Raises IPsecError if this driver cannot carry the tunnel, or the daemon
        refuses it; nothing of it is left in the daemon then.
        """
        refuse_what_cannot_be_carried(spec)
        self._refuse_what_is_not_here(spec)
        with (
            self._turn.of(spec),
            all_or_nothing(self.down, spec.name),
            self._tying.halves_blocked(spec),
            self._session() as session,
        ):
            for key in messages.shared_keys(spec):
                session.load_shared(key)
            crash.reach("ipsec.secrets-loaded")
            addresses = messages.pool(spec)
            if addresses is not None:
                session.load_pool(addresses)
                crash.reach("ipsec.pool-loaded")
            for connection in messages.connections(spec):
                session.load_conn(connection)

    def _session(self) -> AbstractContextManager[Session]:
        return open_session(self._socket)

    def _refuse_what_is_not_here(self, spec: TunnelSpec) -> None:
        here = self.capabilities()
        if spec.objective not in here.objectives:
            raise cannot_carry(f"the objective {spec.objective.label}")
        if spec.mode not in here.modes:
            raise cannot_carry(f"{spec.mode} mode")

    def up(self, spec: TunnelSpec) -> TunnelStatus:
        """Initiate IKE (the paper's step 9), and confirm() what came up.

        With a PPK the IKE_SA is rekeyed at once: only its successor is protected by
        the PPK too (RFC 8784 section 6).

        Raises IPsecError, saying why, if the tunnel does not come up whole; nothing
        of it is left then.
        """
        with all_or_nothing(self.down, spec.name):
            if messages.sets_its_address(spec):
                self._set_its_address(spec)
            for part in parts(spec):
                self._negotiation.start(part.name, has_child=bool(part.protocol))
                crash.reach("ipsec.initiated")
                self._refuse_another_address(spec, part)
                if part.ppk is not None:
                    self._negotiation.rekey_ike(part.name)
        return self.confirm(spec)

    def _set_its_address(self, spec: TunnelSpec) -> None:
        """Set the address inside once the peer has proved itself: it is the whole machine's.

        At no interface of the way to Target: charon's own routes lead there. It has to be
        there before charon makes them, with the SAs that carry packets.
        """
        self._negotiation.start(spec.name, has_child=False)
        found = self._listed.sas(spec.name)
        if not found:
            raise IKESilentError(_WENT_DOWN)
        _, ike_sa = found[0]
        way = way_to(ike_sa["local-host"], ike_sa["remote-host"])
        address = spec.virtual_address or ""
        try:
            inner_address.install(address, spec.remote_networks, _OWN_INTERFACE, way)
        finally:
            self._set[spec.name] = address

    def _refuse_another_address(self, spec: TunnelSpec, part: Part) -> None:
        """See at once, and not with all the rest, that Target assigned what it had granted.

        It is the machine's by then, and whoever drags the rest out would have it be so.
        """
        given = {each for _, sa in self._listed.sas(part.name) for each in sa.get("local-vips", ())}
        if given - {spec.virtual_address}:
            self._negotiation.end_at_once(part.name)
            raise IPsecError(
                "Target assigned another virtual address than it granted, so the tunnel was"
                " ended; ask the operator of Target."
            )

    def confirm(self, spec: TunnelSpec) -> TunnelStatus:
        """Compare the live tunnel with what was agreed, and tie AH and ESP together.

        Raises IPsecError if it is less, IKESilentError if it is gone, and removes all of it:
        nothing is downgraded.
        """
        with all_or_nothing(self.down, spec.name):
            live = self._listed.agreed_parts(spec)
            if not any(reports.is_up(part, sa) for part, sa in live.items()):
                raise IKESilentError(_WENT_DOWN)
            found = reports.shortfalls(spec, live)
            if found:
                raise IPsecError(
                    f"The tunnel is less than was agreed ({', '.join(found)}) and nothing is"
                    " downgraded, so it was ended; ask the operator of Target."
                )
            self._tying.tie(spec, live)
            return reports.status(spec.name, live, self._listed.peers(spec.name).get(spec.name, ()))

    def forget_secrets(self, name: str) -> None:
        """Take the pre-shared keys out of the daemon; the SA lives on (step 10).

        An IKEv1 connection by which anybody may come goes too: the next one to come is
        another traveller, whom nothing but her key tells apart.
        """
        awaited = self._listed.awaited_in_main_mode(name)
        with open_session(self._socket) as session:
            _unload_keys(session, name)
            if name in awaited:
                session.unload_conn({"name": name})

    def resumable(self) -> frozenset[str]:
        """Return the tunnels whose connection and secrets are still loaded."""
        return self._resuming.names()

    def resume(self, name: str) -> TunnelStatus:
        """Initiate IKE anew for a tunnel that was lost; one that stands is left as it is.

        The daemon still has the whole of what was agreed, and nothing else is negotiated.

        Raises IKESilentError if the peer does not answer, IKEUnprovenError if somebody says
        no in its place, and the tunnel may be resumed later; IKERefusedError if it never
        can be.
        """
        return self._resuming.resume(name)

    def take_leave(self, name: str) -> bool | None:
        """End the Client's end of a tunnel so that the peer knows; down() takes out the rest."""
        return self._resuming.take_leave(name)

    def down(self, name: str) -> None:
        """End the tunnel and remove all of it; nothing to end is no error.

        Without a daemon it goes out of the kernel all the same, which NothingLeftError says.
        """
        try:
            self._end(name)
        except DaemonGoneError as error:
            raise ended(error, clean=leftovers.take_out(name)) from error
        except IPsecError:
            # One that never answers again takes nothing out of the kernel any more.
            leftovers.remove(name)
            raise
        crash.reach("ipsec.terminated")
        own = own_addresses(self._listed.connections(name))
        # One that was set as another down() took the connection out is listed no more.
        set_here = self._set.pop(name, None)
        shared = self._give_up({*own, *filter(None, [set_here])}, name, set_here)
        with open_session(self._socket) as session:
            loaded = [c for c in text(session.get_conns())["conns"] if tunnel_of(c) == name]
            for connection in loaded:
                _unload_connection(session, connection)
                counters.forget(session, connection)
                crash.reach("ipsec.connection-unloaded")
        # Of tunnels that end at the same time each was another's to the other until now.
        self._give_up(shared, name, set_here)
        # A listing may have missed it as its peer rekeyed: see Listing.agreed_parts().
        self._end(name)
        with open_session(self._socket) as session:
            if name in session.get_pools({"name": name}):
                settling(retry_if_exception_type(CommandException))(
                    session.unload_pool, {"name": name}
                )
                crash.reach("ipsec.pool-unloaded")
            _unload_keys(session, name)
        if not loaded:
            leftovers.remove(name, self._pairs, lambda: self._others(name))
        if name not in loaded:
            # Last, so that nothing of it leaves in clear while an SA of it is left. What is one
            # connection, of that name, has no policies of ours.
            self._tying.untie(name)
        if not loaded or any(map(is_half, loaded)):
            # The daemon says that it has ended them a moment before they are out of the kernel.
            leftovers.remove_sas(name)
            self._tying.unblock_halves()

    def _give_up(self, addresses: Iterable[str], name: str, set_here: str | None) -> list[str]:
        """Take away the virtual addresses of a tunnel; return those that others have as well.

        What nobody has set for it, as it never came up, is another's: a route of ours tells, or
        that it was set here, perhaps without.
        """
        own = list(addresses)
        others = self._others(name) if own else ()
        at = {set_here: (_OWN_INTERFACE,)}
        return [each for each in own if not inner_address.remove(each, others, at.get(each, ()))]

    def _others(self, name: str) -> list[Lead]:
        """Return where all tunnels lead but this one."""
        return [lead for each, lead in self.leads().items() if each != name]

    def _end(self, name: str) -> None:
        """End the IKE_SAs of a tunnel, as far as they are listed."""
        listed = self._listed.sas(*connection_names(name))
        self._negotiation.end(*dict.fromkeys(each for each, _ in listed))

    def _pairs(self) -> set[tuple[str, str]]:
        """Return between which addresses there are IKE_SAs: this machine's, and the peer's."""
        # One listing may miss one that is rekeyed: see Listing.agreed_parts().
        listed = [*self._listed.sas(), *self._listed.sas()]
        return {(sa["local-host"], sa["remote-host"]) for _, sa in listed}

    def status(self) -> list[TunnelStatus]:
        """Report the live tunnels of ours."""
        tunnels: dict[str, dict[str, Any]] = {}
        for part, sa in reports.newest_parts(self._listed.settled_sas()).items():
            if is_ours(part):
                tunnels.setdefault(tunnel_of(part), {})[part] = sa
        # Connections are as many as tunnels, and to list them takes as long.
        peers = {} if all(map(reports.tells_its_role, tunnels.values())) else self._listed.peers()
        with open_session(self._socket) as session:
            rekeyed = counters.rekeyings(session)
        return [
            replace(
                reports.status(name, found, peers.get(name, ())),
                rekeys=None if rekeyed is None else rekeyed.get(name, 0),
            )
            for name, found in tunnels.items()
        ]

    def sweep(self, keep: Keep) -> list[str]:
        """Remove whatever of ours is not to be kept; return the names removed."""
        installed = self.installed()
        doomed = sorted(installed - keep())
        for name in doomed:
            self.down(name)
        self._tying.sweep(keep)
        inner_address.sweep(lambda: self._listed.own_addresses_of(keep()))
        return doomed

    def installed(self) -> frozenset[str]:
        """Return the names of all that is ours in the daemon, whole or in pieces."""
        names = {name for name, _ in self._listed.sas()}
        with open_session(self._socket) as session:
            names |= set(text(session.get_conns())["conns"])
            names |= set(session.get_pools())
            names |= set(text(session.get_shared())["keys"])
        return frozenset(tunnel_of(name) for name in names if is_ours(name))

    def leads(self) -> dict[str, Lead]:
        """Return by name where the tunnels of ours lead, live or loaded.

        Of others that are live, their addresses inside.
        """
        connections, sas = self._listed.connections(), self._listed.sas()
        names = {tunnel_of(each) for each in (*connections, *dict(sas)) if is_ours(each)}
        foreign = {each: reports.lead({}, [sa]) for each, sa in sas if not is_ours(each)}
        return foreign | {
            name: reports.lead(
                {each: facts for each, facts in connections.items() if tunnel_of(each) == name},
                [sa for each, sa in sas if tunnel_of(each) == name],
            )
            for name in names
        }

    def taking_our_keys(self) -> list[str]:
        """Return which connections, not ours, take who has a key of ours for their peer."""
        return others.taking_our_keys(self._listed.connections())

    def watch(self) -> Iterator[TunnelEvent]:
        """Yield what happens to tunnels of ours from this call on.

        A rekeying is no event. Returns when the daemon goes away or close() is called.
        """
        events = Events(self._socket, ["child-updown", "ike-updown"])
        with self._lock:
            self._watching.add(events)
        return self._tunnel_events(events)

    def _tunnel_events(self, events: Events) -> Iterator[TunnelEvent]:
        try:
            while True:
                event = reports.event(events.next())
                if event is not None:
                    yield event
        except OSError:
            return  # the daemon went away, or close() was called
        finally:
            with self._lock:
                self._watching.discard(events)
            events.close()

    def close(self) -> None:
        """End every watch(), from whichever thread."""
        with self._lock:
            watching = list(self._watching)
        for events in watching:
            events.stop()

    def render(self, spec: TunnelSpec) -> str:
        """Show what install() would load, as swanctl.conf(5) has it, secrets masked."""
        refuse_what_cannot_be_carried(spec)
        return messages.render(spec)


def _unload_connection(session: Session, connection: str) -> None:
    """Unload it; who ends a tunnel and who watches over it may do so at the same time."""
    try:
        session.unload_conn({"name": connection})
    except CommandException:
        if connection in text(session.get_conns())["conns"]:
            raise


def _unload_keys(session: Session, name: str) -> None:
    for key_id in messages.key_ids(name):
        session.unload_shared({"id": key_id})
