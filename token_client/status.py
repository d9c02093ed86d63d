"""`carnet status`: what this machine remembers, beside what the IPsec daemon reports."""

import time
from dataclasses import dataclass
from typing import Any

from carnet.durations import format_duration
from carnet.ipsec.driver import Driver, TunnelStatus
from carnet.objectives import Objective
from token_client.memory import memory_directory
from token_client.sessions import Session, SessionStore


@dataclass(frozen=True)
class TunnelState:
    """A session, and its live tunnel if it has one."""

    session: Session
    live: TunnelStatus | None

    @property
    def seconds_left(self) -> int:
        """How long the session still lives."""
        return max(0, self.session.expires - int(time.time()))


def tunnels(driver: Driver) -> list[TunnelState]:
    """Return this machine's sessions; raises IPsecError if the daemon does not answer."""
    live = {status.name: status for status in driver.status() if status.established}
    sessions = SessionStore(memory_directory()).all()
    return [TunnelState(session, live.get(session.name)) for session in sessions]


def facts(state: TunnelState) -> dict[str, Any]:
    """Return a tunnel's facts, for scripts."""
    session = state.session
    return {
        **{name: getattr(session, name) for name in session.__struct_fields__},
        "up": state.live is not None,
        "seconds_left": state.seconds_left,
        "live": vars(state.live) if state.live else None,
    }


def describe(state: TunnelState) -> str:
    """Return a tunnel as a few lines for a person."""
    session, live = state.session, state.live
    objective = Objective(session.objective_id).label
    head = f"{session.target}  {session.user_id}  {objective}  {', '.join(session.networks)}"
    if session.ended:
        return f"{head}\n  ended: {session.ended}"
    if live is None:
        return f"{head}\n  down; `carnet disconnect {session.target}` clears it"
    ppk = ", post-quantum key" if live.ppk else ""
    return (
        f"{head}\n"
        f"  up for {format_duration(live.established_seconds)}, "
        f"{format_duration(state.seconds_left)} left\n"
        f"  {live.child_suite}, IKE {live.ike_suite}{ppk}\n"
        f"  {session.virtual_address} at {live.local_address} to {live.remote_address}, "
        f"{live.bytes_in} bytes in, {live.bytes_out} bytes out"
    )
