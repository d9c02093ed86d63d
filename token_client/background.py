"""The background agent: watches over a tunnel that `carnet connect` left standing.

It starts as a program of its own, for a module that was loaded before a fork is of no use
after it; what it does is in token_client.supervising.
"""

import subprocess
import sys
import time
from collections.abc import Callable

from carnet.errors import CarnetError, IKERefusedError, TokenError
from carnet.ipsec.driver import Driver
from token_client.closing import end_session
from token_client.config import ClientConfig
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.sessions import SessionStore
from token_client.watched import is_watched

_ASKS = (
    "and asks the Host until Target has said why this one went down, which `carnet status` tells"
    " then, or its time is over."
)
_KNOWS = (
    "and looks after the token until the time of this one is over; why it went down `carnet status`"
    " tells."
)


def start(session: Session, config: ClientConfig) -> bool:
    """Start the agent for a tunnel and return at once; False if it has nowhere to look.

    None starts where the configuration wants none. Raises CarnetError if it cannot.
    """
    if not config.agent:
        return True
    if memory_directory() is None:
        return False
    try:
        subprocess.Popen(
            command_of(session.name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise CarnetError(
            f"The agent that watches over the tunnel cannot be started ({error.strerror}); end "
            f"other programs, or have none by `agent = false` in client.toml."
        ) from error
    return True


def leave_to_agent(session: Session, config: ClientConfig) -> bool:
    """Have an agent see to what a daemon that is silent has of a session; tell if one was started.

    Where the session was ended, another that is there does not keep it from that.
    """
    try:
        return config.agent and start(session, config)
    except CarnetError:
        return False


def finish_what_was_ended(session: Session, config: ClientConfig) -> str:
    """Have an agent end what is left of a session that she ended; return what to say of it."""
    ends = "the agent of this machine" if leave_to_agent(session, config) else "`carnet disconnect`"
    how = "released by hand" if session.stage.is_released else "ended"
    return (
        f"The session to {session.target} was {how} and does not come back; {ends} ends"
        f" what is left of it."
    )


def ask_on(session: Session, config: ClientConfig, refused: IKERefusedError) -> IKERefusedError:
    """Have an agent see to a session whose tunnel never comes back, where none does any more.

    It asks Host why the tunnel went, unless somebody has said so by then, and looks after token
    and time. Returns what to raise: that the tunnel does not come back, and what was done. Raises
    CarnetError if the agent cannot be started.
    """
    from token_client.went import why_down  # noqa: PLC0415 - seldom needed here

    seen_to = is_watched(memory_directory(), session.name) or session.is_over(time.time())
    if seen_to or not config.agent or not start(session, config):
        return refused
    went = why_down(session)
    does = _ASKS if went is None or went.untold else _KNOWS
    return IKERefusedError(
        f"{refused.sentence.rstrip('.')}; the agent of this machine was started, {does}"
    )


def look_once(
    driver: Driver, session: Session, config: ClientConfig, tell: Callable[[str], None]
) -> None:
    """Do for a tunnel that nobody will watch over what watching it would do now.

    A token that cannot be looked at in time, as while the PC/SC service stands still, is
    taken for gone. Raises TokenError if it is, and the configuration ends the tunnel then.
    """
    from carnet.worker import within  # noqa: PLC0415 - all of it seldom needed here
    from token_client.watch import UNSEEN_SECONDS, Watch, lookout  # noqa: PLC0415

    watch = Watch(driver, session, lookout(config, session), config, tell)
    try:
        ending = within(UNSEEN_SECONDS, watch.look)
    except TimeoutError:
        ending = watch.give_up_looking()
    if ending is not None:
        end_session(driver, SessionStore(memory_directory()), session.name)
        raise TokenError(ending.sentence)


def command_of(name: str) -> list[str]:
    """Return the command that watches over a tunnel."""
    return [sys.executable, "-m", "token_client", "agent", name]
