"""The background agent: watches over a tunnel that `carnet connect` left standing.

It starts as a program of its own, for a module that was loaded before a fork is of no use
after it; what it does is in token_client.supervising.
"""

import subprocess
import sys
from collections.abc import Callable

from carnet.errors import CarnetError, TokenError
from carnet.ipsec.driver import Driver
from token_client.closing import end_session
from token_client.config import ClientConfig
from token_client.memory import memory_directory
from token_client.sessions import Session, SessionStore


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
