"""`carnet status` and `carnet disconnect`: what this machine remembers, and what is there.

The IPsec daemon may have a tunnel of ours of which no record tells: there was no file
system in memory to keep one in, or it was damaged. Such a tunnel is shown and ended too.
"""

import time
from dataclasses import dataclass
from typing import Any

from carnet import crash
from carnet.durations import format_duration
from carnet.errors import UsageError
from carnet.ipsec.driver import Driver, TunnelStatus
from carnet.ipsec.spec import Role
from carnet.objectives import Objective
from token_client.memory import memory_directory
from token_client.sessions import Session, SessionStore


@dataclass(frozen=True)
class TunnelState:
    """A tunnel: its record, its live report, or both."""

    name: str
    session: Session | None
    live: TunnelStatus | None

    @property
    def label(self) -> str:
        """What people call it: its Target, or its name where nothing tells the Target."""
        return self.session.target if self.session else self.name

    @property
    def seconds_left(self) -> int | None:
        """How long the session still lives; None where nothing tells."""
        return self.session.seconds_left(time.time()) if self.session else None


def tunnels(driver: Driver) -> list[TunnelState]:
    """Return the tunnels of which this machine is the Client, those with a record first.

    Raises IPsecError if the daemon does not answer.
    """
    store = SessionStore(memory_directory())
    sessions = store.all()
    live = {status.name: status for status in driver.status() if status.established}
    recorded = [TunnelState(each.name, each, live.get(each.name)) for each in sessions]
    # A record may have come or gone while the daemon was asked.
    known = {session.name for session in sessions + store.all()}
    return recorded + [
        TunnelState(name, None, status)
        for name, status in live.items()
        if name not in known and status.role is Role.CLIENT
    ]


def end(driver: Driver, named: str | None) -> list[TunnelState]:
    """End the tunnels of that name or Target, all where none is named; return them.

    Raises UsageError if a name fits none, IPsecError.
    """
    states = tunnels(driver)
    doomed = [state for state in states if named in {None, state.name, state.label}]
    if named is not None and not doomed:
        known = ", ".join(sorted({state.label for state in states})) or "none"
        raise UsageError(f"There is no tunnel {named!r}; `carnet status` shows: {known}.")
    store = SessionStore(memory_directory())
    for state in doomed:
        driver.down(state.name)
        crash.reach("client.disconnected")
        store.drop(state.name)
    return doomed


def facts(state: TunnelState) -> dict[str, Any]:
    """Return a tunnel's facts, for scripts."""
    session = state.session
    remembered = {name: getattr(session, name, None) for name in Session.__struct_fields__}
    return {
        **remembered,
        "name": state.name,
        "recorded": session is not None,
        "up": state.live is not None,
        "seconds_left": state.seconds_left,
        "live": vars(state.live) if state.live else None,
    }


def describe(state: TunnelState) -> str:
    """Return a tunnel as a few lines for a person."""
    session, live = state.session, state.live
    if session is None:
        return (
            f"{state.name}  no record tells whose it is; `carnet disconnect {state.name}` ends it"
            + (_describe_live(live, "") if live else "")
        )
    objective = Objective(session.objective_id).label
    networks = ", ".join(session.networks) or "Target alone"
    head = f"{session.target}  {session.user_id}  {objective}  {networks}"
    if session.ended:
        return f"{head}\n  ended: {session.ended}"
    if live is None:
        return f"{head}\n  down; `carnet disconnect {session.target}` clears it"
    return head + _describe_live(live, f", {format_duration(state.seconds_left or 0)} left")


def _describe_live(live: TunnelStatus, left: str) -> str:
    ppk = ", post-quantum key" if live.ppk else ""
    return (
        f"\n  up for {format_duration(live.established_seconds)}{left}\n"
        f"  {live.child_suite or 'no IPsec'}, IKE {live.ike_suite}{ppk}\n"
        f"  {_here(live)} to {live.remote_address}, "
        f"{live.bytes_in} bytes in, {live.bytes_out} bytes out"
    )


def _here(live: TunnelStatus) -> str:
    if live.virtual_address is None:
        return live.local_address
    return f"{live.virtual_address} at {live.local_address}"
