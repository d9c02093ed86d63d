"""`carnet status` and `carnet disconnect`: what this machine remembers, and what is there.

The IPsec daemon may have a tunnel of ours of which no record tells: there was no file
system in memory to keep one in, or it was damaged. Such a tunnel is shown and ended too.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from carnet.counting import counted
from carnet.durations import format_duration
from carnet.errors import IPsecError, UsageError
from carnet.ipsec import block
from carnet.ipsec.driver import TunnelStatus
from carnet.ipsec.spec import Role
from carnet.objectives import Objective
from token_client import closing, name_servers
from token_client.by_record import Ends
from token_client.leaving import may_be_kept
from token_client.memory import memory_directory
from token_client.sessions import RELEASED, Session, SessionStore
from token_client.watched import is_watched

_BEGINNING_SECONDS = 10
"""Within which whoever is to watch over a new tunnel has begun."""
NO_RETURN = (
    "it does not come back if Target is silent for long: `carnet connect` then takes a key pair"
)


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
    def is_untold(self) -> bool:
        """Whether it went down for good, and its record does not say why."""
        ended = self.session is None or not self.session.lives or self.is_over
        return self.live is None and not self.comes_back and not ended

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

    Raises IPsecError if the daemon does not answer.
    """
    directory = memory_directory()
    store = SessionStore(directory)
    sessions = store.all()
    live = _live(driver, sessions)
    coming_back = driver.resumable()
    closed = block.names(session.block for session in sessions)
    # A record may have come or gone while the daemon was asked.
    known = {session.name for session in sessions + store.all()}
    ours = {name for name, status in live.items() if status.role is Role.CLIENT} | closed
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
        )
        for name, session in [*recorded, *unknown]
    ]


def _live(driver: Ends, sessions: list[Session]) -> dict[str, TunnelStatus]:
    """Return what stands; raises IPsecError, which says what is held back meanwhile."""
    try:
        return {status.name: status for status in driver.status() if status.established}
    except IPsecError as error:
        closed = block.names(session.block for session in sessions)
        if not closed:
            raise
        held = {n for session in sessions if session.name in closed for n in session.networks}
        raise IPsecError(
            f"{error.sentence.rstrip('.')}; meanwhile nothing leaves in clear for"
            f" {', '.join(sorted(held)) or 'Target'}, and `carnet disconnect --release` lifts that."
        ) from error


def end(driver: Ends, named: str | None, tell: Callable[[str], None]) -> list[TunnelState]:
    """End the tunnels of that name or Target, all where none is named; return them.

    What Target may still keep is told. Raises UsageError if a name fits none, IPsecError.
    """
    states = tunnels(driver)
    doomed = [state for state in states if named in {None, state.name, state.label}]
    if named is not None and not doomed:
        known = ", ".join(sorted({state.label for state in states})) or "none"
        raise UsageError(f"There is no tunnel {named!r}; `carnet status` shows: {known}.")
    store = SessionStore(memory_directory())
    for state in doomed:
        try:
            heard = closing.end_session(driver, store, state.name)
        except KeyboardInterrupt:
            _tell_what_is_kept(state.session, heard=False, tell=tell, ask=False)
            raise
        _tell_what_is_kept(state.session, heard, tell)
    stay = name_servers.restore_those_of_none(driver, store) if named is None else None
    if stay is not None:
        tell(stay)
    return doomed


def _tell_what_is_kept(
    session: Session | None, heard: bool | None, tell: Callable[[str], None], *, ask: bool = True
) -> None:
    kept = may_be_kept(session, heard, ask=ask) if session else None
    if kept is not None:
        tell(kept)


def release_by_hand(
    driver: Ends,
    named: str | None,
    tell: Callable[[str], None],
    leave_to_agent: Callable[[Session], bool],
) -> list[str]:
    """End sessions and lift their blocks, also where the daemon does not answer.

    What a daemon may have of one then, or systemd-resolved, is left to its agent, which may not
    be had.

    Returns their names, or Targets where these are known. Raises UsageError if a name fits
    none, IPsecError if the packet filter refuses.
    """
    store = SessionStore(memory_directory())
    recorded = {session.name: session for session in store.all()}
    by = {session.block for session in recorded.values()}
    labels = dict.fromkeys(block.names(by), "")
    labels |= {name: session.target for name, session in recorded.items()}
    doomed = {name: label or name for name, label in labels.items() if named in (None, name, label)}
    if named is not None and not doomed:
        raise UsageError(f"There is nothing of a tunnel {named!r} to release.")
    for name in doomed:
        left, staying = list[IPsecError](), list[IPsecError]()
        let_go = partial(closing.release, not_restored=staying.append)
        heard = closing.end_session(driver, store, name, left.append, RELEASED, let_go)
        for said in [each.sentence for each in left] + list(map(name_servers.and_then, staying)):
            tell(said)
        if not ((left or staying) and store.keep_released(name) and leave_to_agent(recorded[name])):
            store.drop(name)
        if heard is not None:  # else Host would have to be asked, and perhaps does not answer
            _tell_what_is_kept(recorded.get(name), heard, tell, ask=False)
    return list(doomed.values())


def facts(state: TunnelState) -> dict[str, Any]:
    """Return a tunnel's facts, for scripts."""
    session = state.session
    remembered = {name: getattr(session, name, None) for name in Session.__struct_fields__}
    return {
        **remembered,
        "name": state.name,
        "recorded": session is not None,
        "up": state.live is not None,
        "closed": state.closed,
        "resumable": state.resumable,
        "comes_back": state.comes_back,
        "watched": state.watched,
        "asked_on": state.is_asked_on,
        "seconds_left": state.seconds_left,
        "objective": Objective(session.objective_id).label if session else None,
        "live": msgspec.structs.asdict(state.live) if state.live else None,
    }


def describe(state: TunnelState) -> str:
    """Return a tunnel as a few lines for a person."""
    session, live = state.session, state.live
    if session is None:
        head = f"{state.name}  no record tells whose it is; "
        if live is None:
            return f"{head}what is meant for it is held back; `carnet disconnect` lifts that"
        return f"{head}`carnet disconnect {state.name}` ends it{_describe_live(live, '')}"
    head = _head(session)
    if session.ended:
        return f"{head}\n  ended: {session.ended}{_describe_released(state, session)}"
    if session.doomed is not None:
        return f"{head}\n  {_describe_doomed(state, session)}"
    if live is None:
        return f"{head}\n  {_describe_down(state, session)}{_describe_agent(state)}"
    silence = "" if state.comes_back else f"\n  {NO_RETURN}"
    remarks = silence + _describe_watch(state, session) + _describe_pairs(session)
    return head + _describe_live(live, _describe_time(session)) + remarks


def describe_ended() -> list[str]:
    """Return why sessions ended, as their records tell, also where no daemon can be asked."""
    records = SessionStore(memory_directory()).all()
    return [f"{_head(each)}\n  ended: {each.ended}" for each in records if each.ended]


def _head(session: Session) -> str:
    objective = Objective(session.objective_id).label
    networks = ", ".join(session.networks) or "Target alone"
    return f"{session.target}  {session.user_id}  {objective}  {networks}"


def _describe_released(state: TunnelState, session: Session) -> str:
    if state.watched or not session.released:
        return ""
    return (
        f"\n  nobody sees to that: `carnet disconnect {session.target}` does, or what"
        f" `carnet resume {session.target}` starts, unless client.toml has `agent = false`"
    )


def _describe_doomed(state: TunnelState, session: Session) -> str:
    """Say what keeps on of a session that somebody has begun to end."""
    stays = "its tunnel may go on" if state.live else "its tunnel is down"
    held = ", and what is meant for it is held back" if state.closed else ""
    who = "the agent of this machine goes on with it, and " if state.watched else ""
    return (
        f"to end: {session.doomed or 'you have ended it, and that was not possible whole.'}\n"
        f"  {stays}{held}; {who}`carnet disconnect {session.target}` tries it again"
    )


def _describe_watch(state: TunnelState, session: Session) -> str:
    if not state.is_forsaken:
        return ""
    return (
        f"\n  nobody watches over it and its token: `carnet resume {session.target}` starts what"
        f" does, unless client.toml has `agent = false`"
    )


def _describe_agent(state: TunnelState) -> str:
    """Say what who watches over a tunnel does while it is down."""
    looks = "and looks after the token"
    if state.is_asked_on:
        return (
            f"\n  the agent of this machine asks the Host why it went down until Target has said"
            f" so, {looks} until the session's time is over"
        )
    if state.is_untold:
        return (
            f"\n  nobody looks after its token, nor asks why it went down: `carnet resume"
            f" {state.label}` starts what does, unless client.toml has `agent = false`"
        )
    if state.watched and state.resumable:
        return f"\n  the agent of this machine brings it back as soon as Target answers, {looks}"
    return ""


def _describe_time(session: Session) -> str:
    now = time.time()
    if session.is_over(now):
        return f", though its time is over: `carnet disconnect {session.target}` ends it"
    soon = ": it ends soon" if session.ends_soon(now) else ""
    return f", {format_duration(session.seconds_left(now))} left{soon}"


def _describe_pairs(session: Session) -> str:
    if session.pairs_left is None:
        return ""
    left = counted(session.pairs_left, "key pair")
    return f"\n  {left} left on token {session.token_label} at the last connect"


def _describe_down(state: TunnelState, session: Session) -> str:
    target = session.target
    closed = "down, and closed: nothing leaves for it in clear" if state.closed else "down"
    what = f"its time is over; {closed}" if state.is_over else closed
    back = (
        f"`carnet resume {target}` brings it back with the same key pair"
        if state.resumable
        else "`carnet connect` opens a new tunnel with the next key pair"
    )
    return f"{what}; {back}, `carnet disconnect {target}` ends the session"


def _describe_live(live: TunnelStatus, left: str) -> str:
    ppk = "post-quantum key" if live.ppk else "no post-quantum key"
    rekeyed = "" if live.rekeys is None else f", rekeyed {_times(live.rekeys)}"
    return (
        f"\n  up for {format_duration(live.established_seconds)}{left}\n"
        f"  {live.child_suite or 'no IPsec'}, IKE {live.ike_suite}, {ppk}{rekeyed}\n"
        f"  {_here(live)} to {live.remote_address}, "
        f"{live.bytes_in} bytes in, {live.bytes_out} bytes out"
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _here(live: TunnelStatus) -> str:
    if live.virtual_address is None:
        return live.local_address
    return f"{live.virtual_address} at {live.local_address}"
