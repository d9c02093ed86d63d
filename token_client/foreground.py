"""`carnet connect --foreground`: stay with the tunnel, and end it with the command."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from carnet.errors import AwayError, IPsecError, TokenError
from carnet.ipsec.driver import Driver
from carnet.ipsec.patience import until_answered
from token_client import closing
from token_client.closing import end_session, raise_it
from token_client.config import ClientConfig
from token_client.ending import Ending
from token_client.faults import reason
from token_client.known import is_meant, is_recorded
from token_client.leaving import may_be_kept
from token_client.memory import memory_directory
from token_client.patience import waits_for
from token_client.record import Session
from token_client.sessions import SessionStore
from token_client.watch import Watch, lookout
from token_client.watched import watching
from token_client.went import keep_down
from token_client.whole_end import raise_unless_gone

_BY_ANOTHER = "The tunnel to {} was ended by another command; run `carnet connect` for a new one."
_FAILED = "What watched over the tunnel to {} failed ({}), so it was ended."


def stay(
    driver: Driver,
    session: Session,
    config: ClientConfig,
    tell: Callable[[str], None],
    show: Callable[[], None],
    leave: Callable[[Session], bool],
) -> None:
    """Show the tunnel, watch over it and the token; take it out whichever way this ends.

    `leave` has the agent see to what is left of a session, and tells whether it does: it goes on
    with an end that fails.

    Raises TokenError if the token was pulled and the configuration ends the tunnel
    then, IPsecError if the session is over, or the tunnel went down by itself: what is
    meant for it is held back then, and the background agent ends the session in its time.
    Where the configuration wants none, who has to end it is told.
    """
    here = _Here(driver, session, tell, leave)
    try:
        with watching(session.name):
            show()
            eye = lookout(config, session)
            ending = Watch(driver, session, eye, config, tell, here.give_up).run()
    except KeyboardInterrupt:
        with here.leaving_the_rest():
            here.end_now(None)
        raise
    except BaseException as error:
        here.end_or_hand_over(_FAILED.format(session.target, reason(error)))
        raise
    if ending.pulled or ending.over:
        with here.leaving_the_rest():
            here.end(ending.sentence)
        raise (TokenError if ending.pulled else IPsecError)(ending.sentence)
    if not ending.meant and not is_meant(session):
        with here.leaving_the_rest():
            here.leave_nothing()
        raise IPsecError(_BY_ANOTHER.format(session.target))
    with suppress(IPsecError):  # the daemon itself may be what is gone
        driver.down(session.name)
        keep_down(driver, session, ending)
    if not here.hand_over():
        here.say_who_ends_it()
    raise IPsecError(ending.sentence)


class _Here:
    """The session that ends with this command."""

    def __init__(
        self,
        driver: Driver,
        session: Session,
        tell: Callable[[str], None],
        leave: Callable[[Session], bool],
    ) -> None:
        self._driver = driver
        self._session = session
        self._tell = tell
        self._leave = leave
        self._said: set[str] = set()

    def end_or_hand_over(self, why: str) -> None:
        """End it, or leave it to the agent where that cannot be now. Raises IPsecError then.

        A tunnel that may stand, and that no agent ends, is stayed with until it can be ended.
        """
        try:
            self._end(raise_it, why)
        except AwayError:
            if self.hand_over():
                raise
            self.end(why)
        except IPsecError:
            self.hand_over()
            raise

    @contextmanager
    def leaving_the_rest(self) -> Iterator[None]:
        """End it in here: what fails is raised, and the agent goes on with it."""
        try:
            yield
        except Exception:
            self.hand_over()
            raise

    def hand_over(self) -> bool:
        """Have the agent see to its end, if there is to be one; tell whether it does."""
        return is_recorded(self._session) and self._leave(self._session)

    def say_who_ends_it(self) -> None:
        """Say what is left of a session that nobody ends in its time."""
        if is_recorded(self._session) and self._session.block is not None:
            self._tell(
                f"No agent looks after what is left of the session to {self._session.target}: what"
                f" is meant for it is held back until `carnet disconnect`."
            )

    def end_now(self, why: str | None) -> None:
        """End it, also without a daemon, and say what Target may keep. Raises IPsecError.

        `why` is what is told of it until it is ended; None where that is she herself.
        """
        self._end(raise_unless_gone, why)

    def _end(self, not_down: Callable[[IPsecError], None], why: str | None) -> None:
        """End it, and say what Target may keep, unless another has ended it whole, and said it."""
        sessions, name = SessionStore(memory_directory()), self._session.name
        ends_here: list[bool] = []

        def forget(sessions: SessionStore, name: str, _: str | None) -> None:
            """Let go of it; why it ended is said by this command, and need not stay."""
            ends_here.append(_is_not_ended(sessions, name))
            closing.release(sessions, name)

        heard = end_session(self._driver, sessions, name, not_down, why, forget)
        kept = may_be_kept(self._session, heard) if any(ends_here) else None
        if kept is not None:
            self._tell(kept)

    def end(self, why: str) -> None:
        """End it as soon as helper and daemon answer. Raises IPsecError."""
        until_answered(partial(self.end_now, why), away=self._say_it_is_away)

    def _say_it_is_away(self, error: AwayError) -> None:
        """Say once each what the end waits for, however often it is tried."""
        sentence = f"The tunnel is to end, and {waits_for(error)}."
        if sentence not in self._said:
            self._said.add(sentence)
            self._tell(sentence)

    def leave_nothing(self) -> None:
        """Take out what is left of what another command has ended, or only begun to.

        Raises IPsecError.
        """
        until_answered(partial(self.end_now, None), away=self._say_it_is_away)

    def give_up(self, ending: Ending) -> int:
        """End it where Watch.run() cannot return; return the command's exit status.

        This command ends then, and with what is left of it the agent begins that waits for that.
        """
        try:
            self.end(ending.sentence)
        except IPsecError as error:
            self._tell(f"carnet: {error.sentence}")
            return error.exit_status
        self._tell(f"carnet: {ending.sentence}")
        return (TokenError if ending.pulled else IPsecError).exit_status


def _is_not_ended(sessions: SessionStore, name: str) -> bool:
    """Tell whether nobody has ended it; where nothing is recorded, nobody else can have."""
    record = sessions.find(name)
    return not sessions.records or (record is not None and not record.stage.is_ended)
