"""What happens when a token is pulled: what the configuration says."""

import subprocess

from carnet.errors import IPsecError
from carnet.ipsec.driver import Driver
from carnet.token.identity import Identity
from token_client.by_record import ByRecord
from token_client.closing import end_session
from token_client.config import ClientConfig, OnRemoval
from token_client.memory import memory_directory
from token_client.sessions import SessionStore
from token_client.status import tunnels

_LOCK_SECONDS = 10.0
_left_running: list[subprocess.Popen[bytes]] = []
"""What was told to lock and has not ended, kept so that nobody takes it for forgotten."""


def end_unless_kept(driver: Driver, config: ClientConfig, token: Identity) -> None:
    """End the tunnels of a token that was pulled in the middle of `carnet connect`.

    One may be up already, and nobody watches over it yet. One of which no record tells may
    be this token's, so it ends too. Raises IPsecError.
    """
    if config.on_removal is OnRemoval.KEEP:
        return
    store = SessionStore(memory_directory())
    ends = ByRecord(config.drivers, driver)
    failures = list[IPsecError]()
    for state in tunnels(ends):
        if state.session is None or state.session.token.may_be(token):
            try:
                end_session(ends, store, state.name)
            except IPsecError as error:  # which keeps no other from ending
                failures.append(error)
    for failure in failures:
        raise failure


def lock_screen(command: tuple[str, ...]) -> str | None:
    """Lock the screen; return what went wrong, if something did.

    A command that does not end may hold the lock, as swaylock does without --daemonize, or
    hang before it. It is left to itself: killed, it would let go of the screen.
    """
    try:
        locking = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    try:
        status = locking.wait(_LOCK_SECONDS)
    except subprocess.TimeoutExpired:
        _left_running.append(locking)
        return f"{command[0]} has not ended and is left running, so nobody knows whether it locked"
    return f"{command[0]} ended with {status}" if status else None
