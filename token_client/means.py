"""What the user asks for, and what an exchange uses to have it."""

from collections.abc import Callable

import msgspec

from carnet.ipsec.driver import Driver
from carnet.wire.messages import Request, RequestInfo
from token_client.booklet import Booklet
from token_client.by_record import Ends
from token_client.closing import Closing
from token_client.heir import Heir
from token_client.host import HostSender
from token_client.pending import PendingStore
from token_client.record import Known, Session
from token_client.sessions import SessionStore
from token_client.steps import Steps


class Wish(msgspec.Struct, frozen=True):
    """What the user asks for, whichever key pair carries it."""

    target: str
    objective_id: int
    networks: tuple[str, ...] | None
    """None: all that she may have; empty: Target alone."""
    lifetime: int | None

    def is_of(self, request: Request) -> bool:
        """Tell whether an earlier request asked for the same."""
        info = request.request_info
        asked = Wish(info.target, request.objective_id, info.networks, info.lifetime)
        return asked == self


class Life(msgspec.Struct, frozen=True):
    """How a tunnel lives on when its peer is silent, as configured."""

    resume: bool
    """Whether it may come back with the same key pair."""
    dead_peer_seconds: int
    force_udp: bool
    """UDP encapsulation, whatever Target says."""
    dns: bool
    """Whether the tunnel's name servers are used."""


class Means(msgspec.Struct, frozen=True):
    """What an exchange uses."""

    booklet: Booklet
    driver: Driver
    others: Ends
    """Ends the tunnels of other sessions."""
    make_info: Callable[[Wish, bytes], RequestInfo]
    sender: HostSender
    store: PendingStore
    sessions: SessionStore
    steps: Steps
    closing: Closing
    hosts: tuple[str, ...]
    """Where to ask later why the tunnel ended."""
    known: Known
    """Where they were found to be for the sessions that there are."""
    life: Life
    module: str | None
    """The PKCS#11 module, where it was named."""
    stands: Callable[[Session], None]
    """Is told of the tunnel when all is done: whoever called cares for it from then on."""
    heir: Heir
    """Waits to watch over what this exchange brings up, whatever becomes of the command."""
    allow_weak: bool = False
    """Whether Target may choose suites that are for benchmarks only."""
