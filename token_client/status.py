"""The tunnels of this machine: what is remembered of them, and what is there.

The IPsec daemon may have a tunnel of ours of which no record tells: there was no file
system in memory to keep one in, or it was damaged. Such a tunnel is shown and ended too.
"""

import time
from collections.abc import Collection, Iterable, Mapping

import msgspec

from carnet.errors import DaemonGoneError, HelperAwayError, IPsecError
from carnet.ipsec import block
from carnet.ipsec.driver import TunnelStatus
from carnet.ipsec.iproute import is_left
from carnet.ipsec.spec import Role
from token_client.by_record import ByRecord, Ends
from token_client.carried import carried, what_is_carried
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.session_states import State
from token_client.sessions import SessionStore
from token_client.watched import is_watched

_LIFTED = ", and `carnet disconnect --release` lifts that"
_BEGINNING_SECONDS = 10
"""Within which whoever is to watch over a new tunnel has begun."""


class TunnelState(msgspec.Struct, frozen=True):
    """A tunnel: its record, its live report, or both."""

    name: str
    session: Session | None
    live: TunnelStatus | None
    closed: bool
    """Whether packets that are meant for it are held back while it is down."""
    comes_back: bool
    """Whether the daemon has what it takes to bring it back with the same key pair."""
    watched: bool
    """Whether a process of hers watches over it and its token."""
    trouble: str | None = None
    """Why its daemon does not say whether it stands; None where it does."""
    carried: bool = False
    """Whether the kernel carries it on, though its daemon, started anew, knows nothing of it."""

    left: bool = False
    """Whether it stands at an address that this machine has no more: nothing passes by it."""

    @property
    def resumable(self) -> bool:
        """Whether it is down, and could come back with the same key pair."""
        dead = self.session is not None and not self.session.lives
        return self.live is None and self.comes_back and not (self.is_over or dead)

    @property
    def is_over(self) -> bool:
        """Whether its time is over, and who should have ended it has not."""
        return self.session is not None and self.session.is_over(time.time())

    @property
    def is_forsaken(self) -> bool:
        """Whether it stands and nobody watches over it, who has had the time to begin."""
        begun = self.live is not None and self.live.established_seconds >= _BEGINNING_SECONDS
        return self.session is not None and begun and not self.watched

    @property
    def is_unseen(self) -> bool:
        """Whether it is yet to come up, as far as anybody knows, or never did."""
        unseen = self.session is not None and self.session.stage.is_unseen
        return unseen and self.live is None

    @property
    def is_untold(self) -> bool:
        """Whether it went down for good, and its record does not say why."""
        return self._is_down_for_good and self.why_down is None

    @property
    def why_down(self) -> str | None:
        """Why it went down for good, where its record says so: its session lives still."""
        told = self.session is not None and self.session.stage.state is State.GONE
        return self.session.stage.why if self.session and told and self._is_down_for_good else None

    @property
    def _is_down_for_good(self) -> bool:
        ended = self.session is None or not self.session.lives or self.is_over
        return self.live is None and not (self.comes_back or ended or self.is_unseen)

    @property
    def is_asked_on(self) -> bool:
        """Whether who watches asks on why it went down, unless somebody has said so."""
        return self.watched and self.is_untold

    @property
    def label(self) -> str:
        """What people call it: its Target, or its name where nothing tells the Target."""
        return self.session.target if self.session else self.name

    @property
    def seconds_left(self) -> int | None:
        """How long the session still lives; None where nothing tells."""
        return self.session.seconds_left(time.time()) if self.session else None


def tunnels(driver: Ends) -> list[TunnelState]:
    """Return the tunnels of which this machine is the Client, those with a record first.

    Raises IPsecError if no daemon answers; of one of several it is in the state of its tunnels.
    """
    directory = memory_directory()
    store = SessionStore(directory)
    sessions = store.all()
    live = _live(driver, sessions)
    coming_back = driver.resumable()
    closed = block.names(session.block for session in sessions)
    troubles = _troubles(driver, sessions, closed)
    # A record may have come or gone while the daemon was asked.
    known = {session.name for session in sessions + store.all()}
    ours = {name for name, status in live.items() if status.role is Role.CLIENT} | closed
    carried_on = _carried_on(sessions, live, coming_back)
    left = {
        each.name
        for each in live.values()
        if is_left(each.local_address, each.remote_address, each.virtual_address)
    }
    unknown = [(name, None) for name in sorted(ours - known)]
    recorded = [(each.name, each) for each in sessions]
    return [
        TunnelState(
            name,
            session,
            live.get(name),
            name in closed,
            name in coming_back,
            is_watched(directory, name),
            troubles.get(name),
            name in carried_on,
            name in left,
        )
        for name, session in [*recorded, *unknown]
    ]


def recorded(trouble: str) -> list[TunnelState]:
    """Return the tunnels of which records tell, where no daemon can be asked, for this trouble."""
    directory = memory_directory()
    sessions = SessionStore(directory).all()
    closed = _closed_meanwhile(sessions)
    return [
        TunnelState(
            each.name,
            each,
            live=None,
            closed=each.name in closed,
            comes_back=False,
            watched=is_watched(directory, each.name),
            trouble=trouble,
        )
        for each in sessions
    ]


def _carried_on(
    sessions: Iterable[Session],
    live: Mapping[str, TunnelStatus],
    coming_back: Collection[str],
) -> Collection[str]:
    """Return which tunnels of no daemon's the kernel carries on, as far as it tells."""
    used = {each.remote_address for each in live.values()}
    gone = [
        each
        for each in sessions
        if each.name not in {*live, *coming_back} and used.isdisjoint(each.target_addresses)
    ]
    return carried(gone) or ()


def _live(driver: Ends, sessions: list[Session]) -> dict[str, TunnelStatus]:
    """Return what stands; raises IPsecError, which says what is held back meanwhile."""
    try:
        return {status.name: status for status in driver.status() if status.established}
    except IPsecError as error:
        closed = _closed_meanwhile(sessions)
        raise IPsecError(_with_what_is_held(error, sessions, closed)) from error


def _closed_meanwhile(sessions: list[Session]) -> frozenset[str]:
    """Return for which tunnels packets are held back; as records have it, if nobody else tells."""
    try:
        return block.names(session.block for session in sessions)
    except IPsecError:
        held = [each for each in sessions if each.block and not each.stage.is_ended]
        return frozenset(each.name for each in held)


def _with_what_is_held(
    error: IPsecError, sessions: Iterable[Session], closed: frozenset[str]
) -> str:
    """Return an error's sentence, with what goes on, and is held back, for these meanwhile."""
    sessions = list(sessions)
    on = what_is_carried(sessions) if isinstance(error, DaemonGoneError) else None
    said = error.sentence if on is None else f"{error.sentence.rstrip('.')}; {on}."
    if not closed:
        return said
    shut = [session for session in sessions if session.name in closed]
    held = {network for session in shut for network in session.networks}
    # Without the helper the block stays, and she has nothing else to lift it by.
    lifted = "" if isinstance(error, HelperAwayError) else _LIFTED
    return (
        f"{said.rstrip('.')}; meanwhile nothing leaves in clear for"
        f" {', '.join(sorted(held)) or 'Target'}{lifted}."
    )


def _troubles(driver: Ends, sessions: list[Session], closed: frozenset[str]) -> dict[str, str]:
    """Return why the daemons of some sessions do not answer, while others do."""
    found = driver.troubles() if isinstance(driver, ByRecord) else {}
    return {
        each.name: _with_what_is_held(found[each.name], [each], closed & {each.name})
        for each in sessions
        if each.name in found
    }
