"""The strongSwan driver: tunnels and secrets through VICI, nothing on disk."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from vici import Session

from carnet import crash
from carnet.errors import AwayError, IKESilentError, IPsecError
from carnet.ipsec import strongswan_messages as messages
from carnet.ipsec import strongswan_others as others
from carnet.ipsec import strongswan_reports as reports
from carnet.ipsec.driver import Capabilities, Keep, Lead, TunnelEvent, TunnelStatus
from carnet.ipsec.main_mode import Turn
from carnet.ipsec.spec import TunnelSpec
from carnet.ipsec.strongswan_addresses import OwnAddresses
from carnet.ipsec.strongswan_limits import (
    IKE_VERSIONS,
    cannot_carry,
    carried,
    refuse_what_cannot_be_carried,
)
from carnet.ipsec.strongswan_listing import Listing
from carnet.ipsec.strongswan_negotiation import Negotiation
from carnet.ipsec.strongswan_parts import Part, connection_names, parts
from carnet.ipsec.strongswan_removing import Removing
from carnet.ipsec.strongswan_resuming import Resuming
from carnet.ipsec.strongswan_shortfalls import missing_parts, shortfalls
from carnet.ipsec.strongswan_tunnels import Tunnels
from carnet.ipsec.strongswan_tying import Tying
from carnet.ipsec.strongswan_watch import Watches
from carnet.ipsec.too_many import refuse_more
from carnet.ipsec.vici_link import accepts, find_socket, open_session, text
from carnet.ipsec.whole import all_or_nothing

IKE_TIME_LIMIT = 20.0
"""Seconds for one IKE negotiation: three retransmissions of strongSwan's (4, 7.2, 13 s)."""

_WENT_DOWN = "The tunnel went down again as it came up; connect again."
_BEING_REKEYED = "The tunnel is being rekeyed, and the peer's answer is late; try again."
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
        self._tunnels = Tunnels(self._socket, self._listed)
        self._watches = Watches(self._socket)
        self._negotiation = Negotiation(self._socket, self._listed, ike_time_limit)
        self._resuming = Resuming(self._socket, self._listed, self._negotiation)
        self._tying = Tying(self._socket, self._listed)
        self._addresses = OwnAddresses(self._listed, self._tunnels)
        self._removing = Removing(
            self._socket,
            self._listed,
            self._tunnels,
            self._negotiation,
            self._tying,
            self._addresses,
        )
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
            return self._compared(spec)

    def _set_its_address(self, spec: TunnelSpec) -> None:
        """Set the address inside once the peer has proved itself: it is the whole machine's.

        It has to be there before charon makes its own routes, with the SAs that carry packets.
        """
        self._negotiation.start(spec.name, has_child=False)
        found = self._listed.sas(spec.name)
        if not found:
            raise IKESilentError(_WENT_DOWN)
        _, ike_sa = found[0]
        self._addresses.install(spec, ike_sa)

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
        nothing is downgraded. Nothing is removed where the daemon is silent, or a rekeying is not
        answered yet, which AwayError says.
        """
        with all_or_nothing(self.down, spec.name, but=(AwayError,)):
            return self._compared(spec)

    def _compared(self, spec: TunnelSpec) -> TunnelStatus:
        """Do what confirm() does, and remove nothing."""
        self.refuse_many(spec.name)
        live = self._listed.agreed_parts(spec)
        missing = missing_parts(spec, live)
        if missing and all(reports.awaits_child(live.get(part.name, {})) for part in missing):
            raise AwayError(_BEING_REKEYED)
        if not any(reports.is_up(part, sa) for part, sa in live.items()):
            raise self._why_none_is_up(spec.name)
        found = shortfalls(spec, live)
        if found:
            raise IPsecError(
                f"The tunnel is less than was agreed ({', '.join(found)}) and nothing is"
                " downgraded, so it was ended; ask the operator of Target."
            )
        self._tying.tie(spec, live)
        return reports.status(spec.name, live, self._listed.peers(spec.name).get(spec.name, ()))

    def lead_again(self, name: str) -> None:
        """Set the routes of AH and ESP that are gone: all others are the daemon's own."""
        self._tying.lead_again(name, self._listed.parts_of(name))

    def _why_none_is_up(self, name: str) -> IPsecError:
        if self._negotiation.ends_unlisted(*connection_names(name)):
            return IPsecError(
                "The tunnel has more CHILD_SAs than the strongSwan daemon can list, so it was"
                " ended; ask its user what negotiates there."
            )
        return IKESilentError(_WENT_DOWN)

    def refuse_many(self, name: str) -> None:
        """See that a tunnel's Client does not negotiate again and again beside what stands.

        One that has come anew says so, and what stood before goes with that (INITIAL_CONTACT,
        RFC 7296 section 2.4). Raises IPsecError.
        """
        sas = self._listed.sas(*connection_names(name))
        refuse_more(reports.standing_at_once(sas), reports.children_at_once(sas))

    def forget_secrets(self, name: str) -> None:
        """Take the pre-shared keys out of the daemon; the SA lives on (step 10)."""
        self._removing.forget_secrets(name)

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
        self._removing.down(name)

    def status(self) -> list[TunnelStatus]:
        """Report the live tunnels of ours."""
        return self._tunnels.status()

    def sweep(self, keep: Keep) -> list[str]:
        """Remove whatever of ours is not to be kept; return the names removed."""
        return self._removing.sweep(keep)

    def installed(self) -> frozenset[str]:
        """Return the names of all that is ours in the daemon, whole or in pieces."""
        return self._tunnels.installed()

    def remembered(self) -> frozenset[str]:
        """Return the same: all of it goes with the daemon, but for what the kernel has."""
        return self._tunnels.installed()

    def leads(self) -> dict[str, Lead]:
        """Return by name where the tunnels of ours lead, live or loaded.

        Of others that are live, their addresses inside.
        """
        return self._tunnels.leads()

    def taking_our_keys(self) -> list[str]:
        """Return which connections, not ours, take who has a key of ours for their peer."""
        return others.taking_our_keys(self._listed.connections())

    def watch(self) -> Iterator[TunnelEvent]:
        """Yield what happens to tunnels of ours from this call on.

        That an IKE_SA is rekeyed is an event only where that is done again and again. Returns
        when the daemon goes away or close() is called.
        """
        return self._watches.begin()

    def close(self) -> None:
        """End every watch(), from whichever thread."""
        self._watches.end()

    def render(self, spec: TunnelSpec) -> str:
        """Show what install() would load, as swanctl.conf(5) has it, secrets masked."""
        refuse_what_cannot_be_carried(spec)
        return messages.render(spec)
