"""A tunnel that nobody has seen come up, for who brings tunnels up was silent: it may later.

`carnet connect` has said so, and left it to the agent: what stands as soon as there is an answer
is watched over like any other, and of what does not nothing is left.
"""

from collections.abc import Callable

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from carnet.ipsec.driver import Driver
from carnet.ipsec.patience import until_answered
from token_client.alone import alone
from token_client.closing import release
from token_client.known import is_known, lives_no_more
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.session_states import Seen
from token_client.sessions import SessionStore

LATE_SECONDS = 5.0
"""For which a daemon that answers again may take to end what it had begun."""
_LOOK_SECONDS = 0.2


def seen(driver: Driver, session: Session, tell: Callable[[str], None]) -> Session | None:
    """Return a session as soon as its tunnel is seen to stand; None where there is none of it.

    Raises IPsecError.
    """

    def look() -> Session | None:
        # Nobody else waits while this does.
        _awaited(driver, session)
        with alone(), SessionStore(memory_directory()).coming_back(session.name):
            return _look(driver, session, tell)

    return until_answered(look)


def _awaited(driver: Driver, session: Session) -> bool:
    """Wait a little for it to stand, where it can be asked; tell whether it does."""
    waiting = Retrying(
        retry=retry_if_result(lambda stands: not stands),
        stop=stop_after_delay(LATE_SECONDS),
        wait=wait_fixed(_LOOK_SECONDS),
        retry_error_callback=lambda _: False,
    )
    return waiting(_stands, driver, session)


def _look(driver: Driver, session: Session, tell: Callable[[str], None]) -> Session | None:
    """Look once, while nobody else brings it up. Raises IPsecError."""
    if lives_no_more(session) or not is_known(driver, session):
        return None  # she was faster, or her token was pulled
    store = SessionStore(memory_directory())
    record = store.find(session.name)
    if record is not None and not record.stage.is_unseen:
        return record  # `carnet connect` has gone on with its request meanwhile
    if not _stands(driver, session):
        driver.down(session.name)
        release(store, session.name)
        return None
    tell(f"The tunnel to {session.target} came up after all; `carnet disconnect` ends it.")
    store.change(session.name, Seen())
    return (record or session).after(Seen())


def _stands(driver: Driver, session: Session) -> bool:
    return any(live.name == session.name and live.established for live in driver.status())
