"""What `carnet status` says of a tunnel: to scripts, and to a person."""

import time
from typing import Any

import msgspec

from carnet.counting import counted
from carnet.durations import format_duration
from carnet.ipsec.driver import TunnelStatus
from carnet.objectives import Objective
from token_client.memory import memory_directory
from token_client.record import FACTS, Session
from token_client.sessions import SessionStore
from token_client.status import TunnelState

NO_RETURN = (
    "it does not come back if Target is silent for long: `carnet connect` then takes a key pair"
)

_CARRIED = (
    "not known to the IKE daemon, which was started anew, while the kernel carries it on until its"
    " keys are due to be renewed"
)


def facts(state: TunnelState) -> dict[str, Any]:
    """Return a tunnel's facts, for scripts."""
    session = state.session
    remembered = session.facts if session else dict.fromkeys(FACTS)
    return {
        **remembered,
        "name": state.name,
        "recorded": session is not None,
        "up": None if state.trouble else state.live is not None and not state.left,
        "left": state.left,
        "trouble": state.trouble,
        "closed": state.closed,
        "carried": state.carried,
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
    if state.session is None:
        return _describe_unrecorded(state)
    return f"{_head(state.session)}{_describe_recorded(state, state.session)}"


def _describe_unrecorded(state: TunnelState) -> str:
    head = f"{state.name}  no record tells whose it is; "
    if state.live is None:
        return f"{head}what is meant for it is held back; `carnet disconnect` lifts that"
    live = _describe_live(state.live, _at_least(state.live))
    return f"{head}`carnet disconnect {state.name}` ends it{live}"


def _describe_recorded(state: TunnelState, session: Session) -> str:
    live = state.live
    if session.stage.is_ended:
        return f"\n  ended: {session.stage.why}{_describe_released(state, session)}"
    if session.stage.is_to_end:
        return f"\n  {_describe_end(state, session)}"
    if state.trouble is not None:
        return f"\n  not known whether it stands: {state.trouble}"
    if live is None:
        agent = _describe_late(state) if state.is_unseen else _describe_agent(state)
        return f"\n  {_describe_down(state, session)}{agent}"
    if state.left:
        return _describe_live(live, _describe_time(session)) + _describe_left(state)
    silence = "" if state.comes_back else f"\n  {NO_RETURN}"
    remarks = silence + _describe_watch(state, session) + _describe_pairs(session)
    return _describe_live(live, _describe_time(session)) + remarks


def _describe_left(state: TunnelState) -> str:
    left = "\n  it stands at an address that this machine has no more, and nothing passes by it"
    if state.comes_back and state.watched:
        return f"{left}; the agent of this machine brings it back"
    if state.comes_back:
        return f"{left}; `carnet resume {state.label}` brings it back with the same key pair"
    return f"{left}; `carnet connect` opens a new tunnel with the next key pair"


def describe_recorded() -> list[str]:
    """Return the sessions of which records alone tell, where no daemon can be asked.

    Why each has ended, or is to end, or what is left of it where it is meant to live.
    """
    records = SessionStore(memory_directory()).all()
    return [f"{_head(each)}\n  {_describe_unasked(each)}" for each in records]


def _describe_unasked(session: Session) -> str:
    if session.stage.is_ended:
        return f"ended: {session.stage.why}"
    if session.stage.is_to_end:
        return f"to end: {_why_it_is_to_end(session)}"
    if session.stage.is_gone:
        return f"down: {session.stage.why}"
    if session.is_over(time.time()):
        return "not known whether it stands; its time is over"
    left = format_duration(session.seconds_left(time.time()))
    return f"not known whether it stands, {left} left"


def _why_it_is_to_end(session: Session) -> str:
    return session.stage.why or "you have ended it, and that was not possible whole."


def _head(session: Session) -> str:
    objective = Objective(session.objective_id).label
    networks = ", ".join(session.networks) or "Target alone"
    return f"{session.target}  {session.user_id}  {objective}  {networks}"


def _describe_released(state: TunnelState, session: Session) -> str:
    if state.watched or not session.stage.is_released:
        return ""
    return (
        f"\n  nobody sees to that: `carnet disconnect {session.target}` does, or what"
        f" `carnet resume {session.target}` starts, unless client.toml has `agent = false`"
    )


def _describe_end(state: TunnelState, session: Session) -> str:
    """Say what keeps on of a session that somebody has begun to end."""
    goes_on = state.live is not None or state.trouble is not None or state.carried
    stays = "its tunnel may go on" if goes_on else "its tunnel is down"
    held = ", and what is meant for it is held back" if state.closed else ""
    who = "the agent of this machine goes on with it, and " if state.watched else ""
    return (
        f"to end: {_why_it_is_to_end(session)}\n"
        f"  {stays}{held}; {who}`carnet disconnect {session.target}` tries it again"
    )


def _describe_watch(state: TunnelState, session: Session) -> str:
    if not state.is_forsaken:
        return ""
    return (
        f"\n  nobody watches over it and its token: `carnet resume {session.target}` starts what"
        f" does, unless client.toml has `agent = false`"
    )


def _describe_late(state: TunnelState) -> str:
    """Say who looks for a tunnel that nobody has seen come up."""
    if not state.watched:
        return ""
    return (
        "\n  the agent of this machine watches over it where it comes up after all, and looks"
        " after the token"
    )


def _describe_agent(state: TunnelState) -> str:
    """Say what who watches over a tunnel does while it is down."""
    looks = "and looks after the token"
    if state.is_asked_on:
        return (
            f"\n  the agent of this machine asks the Host why it went down until Target has said"
            f" so, {looks} until the session's time is over"
        )
    if state.why_down is not None and state.watched:
        return (
            f"\n  {state.why_down}\n  the agent of this machine looks after the token until the"
            f" session's time is over"
        )
    if state.why_down is not None:
        return (
            f"\n  {state.why_down}\n  nobody looks after its token: `carnet resume {state.label}`"
            f" starts what does, unless client.toml has `agent = false`"
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
    up = f"up for {format_duration(session.age(now))}"
    if session.is_over(now):
        return f"{up}, though its time is over: `carnet disconnect {session.target}` ends it"
    soon = ": it ends soon" if session.ends_soon(now) else ""
    return f"{up}, {format_duration(session.seconds_left(now))} left{soon}"


def _describe_pairs(session: Session) -> str:
    if session.pairs_left is None:
        return ""
    left = counted(session.pairs_left, "key pair")
    return f"\n  {left} left on token {session.token_label} at the last connect"


def _describe_down(state: TunnelState, session: Session) -> str:
    target = session.target
    down = "not up yet" if state.is_unseen else _CARRIED if state.carried else "down"
    closed = f"{down}, and closed: nothing leaves for it in clear" if state.closed else down
    what = f"its time is over; {closed}" if state.is_over else closed
    return f"{what}; {_describe_way_up(state)}, `carnet disconnect {target}` ends the session"


def _describe_way_up(state: TunnelState) -> str:
    """Say by which command there is a tunnel again."""
    if state.is_unseen:
        return "`carnet connect` goes on with it, or opens a new tunnel where that cannot be"
    if state.resumable:
        return f"`carnet resume {state.label}` brings it back with the same key pair"
    return "`carnet connect` opens a new tunnel with the next key pair"


def _at_least(live: TunnelStatus) -> str:
    """Say since when its newest IKE SA stands: no record tells when the first was made."""
    return f"up for at least {format_duration(live.established_seconds)}"


def _describe_live(live: TunnelStatus, time_of_it: str) -> str:
    """Describe what stands; the daemon counts the bytes of an IPsec SA, and anew with the next."""
    ppk = "post-quantum key" if live.ppk else "no post-quantum key"
    rekeyed = "" if live.rekeys is None else f", rekeyed {_times(live.rekeys)}"
    return (
        f"\n  {time_of_it}\n"
        f"  {live.child_suite or 'no IPsec'}, IKE {live.ike_suite}, {ppk}{rekeyed}\n"
        f"  {_here(live)} to {live.remote_address}, "
        f"{live.bytes_in} bytes in, {live.bytes_out} bytes out under its newest keys"
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _here(live: TunnelStatus) -> str:
    if live.virtual_address is None:
        return live.local_address
    return f"{live.virtual_address} at {live.local_address}"
