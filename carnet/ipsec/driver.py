"""The one interface behind which each IPsec implementation stands."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Protocol, runtime_checkable

import msgspec

from carnet.ipsec.spec import Mode, Role, TunnelSpec
from carnet.objectives import Objective


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver can carry on this machine, as asked of the daemon and the kernel."""

    driver: str
    version: str
    ike_versions: tuple[int, ...]
    objectives: tuple[Objective, ...]
    modes: tuple[Mode, ...]
    ppk: bool
    single_network: bool = False
    """Whether a tunnel leads to one network only: one pair of traffic selectors."""
    userspace: bool = False
    """Whether ESP is the daemon's own, behind a tun device, and not the kernel's."""
    uses_assigned_servers: bool = False
    """Whether the daemon itself has all of this machine use name servers that a peer assigns."""


class TunnelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One live tunnel as its daemon reports it."""

    name: str
    role: Role
    """Which end of it this machine is."""
    established: bool
    local_address: str
    remote_address: str
    other_peers: tuple[str, ...] = ()
    """Further addresses to which an IKE_SA of it stands."""
    sas: int = 0
    """Of how many IKE_SAs and CHILD_SAs it consists, with those that go; 0 where not told."""
    virtual_address: str | None
    """The Client's address inside the tunnel; all of them, where the peer gave more than one."""
    ike_suite: str
    """What protects the negotiation, for example "aes256gcm16-prfsha256-x25519"."""
    child_suite: str
    """What protects the packets, for example "ESP aes256gcm16"."""
    encapsulated: bool
    """In UDP (RFC 3948)."""
    ppk: bool
    bytes_in: int
    """By its newest keys, as `bytes_out`: the daemon counts anew with each IPsec SA."""
    bytes_out: int
    established_seconds: int
    """How long its newest IKE SA stands; one that is rekeyed is another."""
    local_selectors: tuple[str, ...] | None = None
    """What packets are for it, at this end and at the peer's; None where that is not told.

    Where several of its IPsec SAs stand, what they have in common: any may be left alone.
    """
    remote_selectors: tuple[str, ...] | None = None
    unanswered: bool = False
    """Whether the peer has yet to answer something in IKE; False where that is not told."""
    rekeys: int | None = None
    """How often the SAs that carry packets got new keys; None where the daemon does not count."""


class Change(StrEnum):
    """What happened to a tunnel."""

    UP = "up"
    """Whole: its last part came up."""
    ANEW = "anew"
    """What stands now may be another than before.

    An IKE_SA of it came up, and perhaps no more; or an IPsec SA was rekeyed, or an end moved.
    """
    ANOTHER = "another"
    """It was ended by whoever tells of it, since it came up as another than was agreed."""
    DOWN = "down"
    """One end has ended it."""
    LOST = "lost"
    """The peer is silent, or came anew: it may come back while its secrets are there."""


class TunnelEvent(msgspec.Struct, frozen=True):
    """Something happened to a tunnel."""

    name: str
    change: Change


Keep = Callable[[], frozenset[str]]
"""Which tunnels are to be kept, at the moment of asking; asked from the sweep's thread."""


@runtime_checkable
class Bounded(Protocol):
    """A driver whose tunnels have limits that somebody has set."""

    def check_limits(self, networks: Sequence[str]) -> None:
        """Refuse, before a key pair is spent, what install() would refuse.

        `networks` are those wanted, none where that is for Target to say. Raises IPsecError.
        """


class Lead(msgspec.Struct, frozen=True):
    """Where a tunnel leads that the daemon has, live or not."""

    targets: frozenset[str] = frozenset()
    """The peer's addresses, as far as they are known."""
    networks: frozenset[str] = frozenset()
    """Those behind it; none where there is the peer alone."""
    inner: frozenset[str] = frozenset()
    """This machine's addresses inside."""
    identities: frozenset[str] = frozenset()
    """What its ends are called in IKE, and its PPK, in small letters, as no daemon minds."""


@runtime_checkable
class Limiting(Protocol):
    """A driver whose daemon lets a peer make as many SAs as it likes."""

    def refuse_many(self, name: str) -> None:
        """See that a tunnel has no more SAs than it may, whole or not. Raises IPsecError."""


@runtime_checkable
class Telling(Protocol):
    """A driver that can tell where all tunnels lead, whoever has installed them."""

    def leads(self) -> dict[str, Lead]:
        """Return by name where the tunnels of ours lead. Raises IPsecError."""


@runtime_checkable
class Forgetful(Protocol):
    """A driver that knows where a tunnel leads by a file alone, which may be damaged."""

    def remind(self, name: str, lead: Lead) -> None:
        """Have it know where a Client's tunnel leads, before it ends that."""


@runtime_checkable
class Shared(Protocol):
    """A driver whose daemon others of this machine give connections, too."""

    def taking_our_keys(self) -> list[str]:
        """Return which of those take who has a key of ours for their peer. Raises IPsecError."""


@runtime_checkable
class Routing(Protocol):
    """A driver that sets routes into tunnels by itself, as no daemon does for it."""

    def lead_again(self, name: str) -> None:
        """Set a Client's routes into a tunnel that stands which are gone, as with a link that went.

        Without a way to the peer nothing is set. Raises IPsecError.
        """


class Driver(Protocol):
    """One IPsec implementation on this machine.

    Every method raises IPsecError, in one sentence, when the daemon cannot be
    reached or refuses.
    """

    name: str

    @property
    def resumes(self) -> bool:
        """Whether resume() can be had, with secrets that are in the daemon's memory alone."""

    def answers(self) -> bool:
        """Tell at once, and without an error, whether its daemon is there for this user.

        One that is silent is there, and is waited for.
        """

    def capabilities(self) -> Capabilities:
        """Ask the daemon and the kernel what they can carry."""

    def install(self, spec: TunnelSpec) -> None:
        """Give the daemon the tunnel and its secrets, in memory only.

        Raises IPsecError if this driver cannot carry the tunnel; nothing of it is
        left in the daemon then.
        """

    def up(self, spec: TunnelSpec) -> TunnelStatus:
        """Initiate IKE for an installed tunnel, and confirm() what came up.

        Raises IPsecError if it does not come up whole; nothing of it is left then.
        """

    def confirm(self, spec: TunnelSpec) -> TunnelStatus:
        """Compare the live tunnel with what was agreed: for either end, once it is up.

        Raises IPsecError if it is less, and removes all of it: nothing is downgraded. It is
        IKESilentError where the peer may have ended it again. AwayError: it is not known
        (yet, as where a rekeying is not answered), and all is left as it is.
        """

    def forget_secrets(self, name: str) -> None:
        """Take the pre-shared keys out of the daemon; the SA lives on."""

    def resumable(self) -> frozenset[str]:
        """Return the tunnels whose secrets are still there: they can be negotiated anew."""

    def resume(self, name: str) -> TunnelStatus:
        """Initiate IKE anew for a tunnel that was lost; one that stands is left as it is.

        Raises IKESilentError if the peer does not answer, IKEUnprovenError if somebody says
        no in its place, and the tunnel may be resumed later; IKERefusedError if it never
        can be.
        """

    def take_leave(self, name: str) -> bool | None:
        """End the Client's end of a tunnel so that Target knows, and waits for no return.

        All but the SAs is left to down(). Returns whether Target has acknowledged that; None
        where there is nothing to tell it by.
        """

    def down(self, name: str) -> None:
        """End the tunnel and remove all of it; nothing to end is no error."""

    def status(self) -> list[TunnelStatus]:
        """Report the live tunnels of ours."""

    def installed(self) -> frozenset[str]:
        """Return the names of all that is ours in the daemon, live or waiting.

        Also of what is to be ended still, though the daemon was started anew and has none of it.
        """

    def remembered(self) -> frozenset[str]:
        """Return of which tunnels of ours the daemon itself has something, live or waiting.

        Of what was another's, which went, it has nothing, whatever that has left.
        """

    def sweep(self, keep: Keep) -> list[str]:
        """Remove whatever of ours is not to be kept; return the names removed.

        What is there is listed before `keep` is asked: what is installed meanwhile stays.
        """

    def watch(self) -> Iterator[TunnelEvent]:
        """Yield what happens to tunnels of ours from this call on.

        Returns when the daemon goes away or close() is called; raises HelperAwayError where
        it is no daemon that goes, but whoever tells of it.
        """

    def close(self) -> None:
        """End every watch(), from whichever thread."""

    def render(self, spec: TunnelSpec) -> str:
        """Show what install() would do, secrets masked; nothing is run, and nothing need be here.

        Raises IPsecError if no machine's such driver can carry the tunnel.
        """
