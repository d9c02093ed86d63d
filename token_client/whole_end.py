"""Ending a session whole, however long who has a part in it is away or fails.

Where a daemon is gone, what it left of the tunnel in the kernel goes without it, and nothing is
held back any more once none is left by which packets could go on. The rest goes as soon as a
daemon is there again.
"""

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from carnet.errors import AwayError, IPsecError, NothingLeftError
from carnet.ipsec.driver import Driver
from token_client import name_servers
from token_client.closing import end_session
from token_client.faults import reason
from token_client.known import is_known
from token_client.leaving import may_be_kept, take_leave
from token_client.memory import memory_directory
from token_client.patience import waits_for
from token_client.record import Session
from token_client.session_states import LeftUnheard
from token_client.sessions import SessionStore

Done = TypeVar("Done")

_FIRST_SECONDS = 0.1
_MOST_SECONDS = 10.0


def raise_unless_gone(error: IPsecError) -> None:
    """Raise what kept a tunnel from being taken down, unless neither daemon nor kernel has one."""
    if not isinstance(error, NothingLeftError):
        raise error


def _cause(error: BaseException) -> BaseException:
    """Return what an end failed with, without what closing.release() says to a command of hers."""
    return error.__cause__ if isinstance(error.__cause__, IPsecError) else error


class WholeEnd:
    """The end of one session; `tell` is told once each why it is not whole yet."""

    def __init__(self, driver: Driver, session: Session, tell: Callable[[str], None]) -> None:
        self._driver = driver
        self._session = session
        self._tell = tell
        self._told: set[str] = set()
        self._heard: bool | None = None
        """Whether Target has heard of it."""
        self._left = True
        """Whether its daemon may still have something of it, or have left it in the kernel."""

    def carry_out(self, why: str | None) -> None:
        """Return when nothing is held back any more, and its record says why, or is gone.

        Who has ended it herself meanwhile has no more of it.
        """
        self._left = False
        self._heard = self._until_done(lambda: self._end(why))

    def may_be_kept(self, why: str | None) -> str | None:
        """Return what to say where Target may keep it, which its record says besides, then."""
        kept = may_be_kept(self._session, self._heard)
        if kept is not None and why is not None:
            unheard = LeftUnheard(f"{why} {kept}")
            SessionStore(memory_directory()).change(self._session.name, unheard)
        return kept

    def clean_up(self) -> None:
        """Take out what a daemon that was gone, or silent, has left when one is there again."""
        if self._left:
            self._until_done(self._take_out, quietly=True)
        sessions, name = SessionStore(memory_directory()), self._session.name
        record = sessions.find(name)
        if record is not None and record.stage.is_released:
            sessions.drop(name)

    def _take_out(self) -> None:
        with SessionStore(memory_directory()).leaving(self._session.name):
            take_leave(self._driver, self._session.name)
            self._driver.down(self._session.name)
            name_servers.restore(self._session.name)

    def _end(self, why: str | None) -> bool | None:
        sessions = SessionStore(memory_directory())
        return end_session(self._driver, sessions, self._session.name, self._not_down, why)

    def _not_down(self, error: IPsecError) -> None:
        raise_unless_gone(error)
        self._left = True

    def _until_done(self, do: Callable[[], Done], *, quietly: bool = False) -> Done | None:
        """Return what it does once it can; None where she was faster. The pauses grow.

        Whatever it fails with, nobody else would go on with it.
        """

        def tell(state: RetryCallState) -> None:
            error = state.outcome and state.outcome.exception()
            if isinstance(error, Exception) and not (quietly and isinstance(error, IPsecError)):
                self._say_once(error)

        return Retrying(
            retry=retry_if_exception_type(Exception),
            wait=wait_exponential(multiplier=_FIRST_SECONDS, max=_MOST_SECONDS),
            stop=lambda _: not is_known(self._driver, self._session),
            before_sleep=tell,
            retry_error_callback=lambda _: None,
        )(do)

    def _say_once(self, error: BaseException) -> None:
        what = (
            waits_for(error)
            if isinstance(error, AwayError)
            else f"could not be ended whole; it is tried again: {reason(_cause(error))}"
        )
        sentence = f"The tunnel to {self._session.target} is to end, and {what}."
        if sentence not in self._told:
            self._told.add(sentence)
            self._tell(sentence)
