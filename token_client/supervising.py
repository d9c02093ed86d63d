"""The background agent at its work, which token_client.background started.

It is two processes. The worker loads the PKCS#11 module, which may crash, and runs the
loop of token_client.watch; the supervisor starts it again. The worker is forked, which takes
less than half of the time that another program would take to begin: the supervisor has no
threads, and loads no module. The worker alone has the lock by which it is known that somebody
watches: where the supervisor is killed, the worker watches on, and nobody watches beside it;
where the supervisor stands still and its worker is gone, others see that nobody does.
"""

import os
import signal
import time
import traceback
from collections.abc import Callable
from functools import partial
from threading import Event, Thread
from typing import NoReturn

from carnet.console import complain
from carnet.entry import INTERRUPTED
from carnet.errors import CarnetError, IPsecError, UsageError
from carnet.ipsec.driver import Driver
from token_client.config import ClientConfig, OnRemoval
from token_client.known import is_ended, is_gone, is_known, is_to_end, why_it_is
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.watched import watching

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tenacity import RetryCallState

    from token_client.ending import Ending
    from token_client.watch import Watch

    Wait = Callable[..., Ending | None]
    """As Watch.until_told()."""

_AS_SHE_WANTED = "The tunnel to {} is ended now, as you wanted; nothing is held back for it."
_FAILED = "What watches over the tunnel to {} failed ({}), and begins anew."
_CRASHES = 5
"""So many in a row, and the token counts as not watched over."""
_IN_A_ROW_SECONDS = 60.0
_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 10.0
"""Between looks for an IPsec daemon that is away."""


def supervise(
    work: Callable[[], None], driver: Driver, session: Session, config: ClientConfig
) -> None:
    """Keep a worker running until it is done, or do without one what ends the session.

    `work` is what it does, with a driver and a configuration of its own. One that crashes
    again and again watches over nothing: what happens then is what happens when the token
    is pulled. One that fails while the IPsec daemon is away has not crashed. Where another
    worker watches, this one's has nothing to do, and is done.
    """
    if memory_directory() is None:
        raise UsageError("There is no file system in memory here, and so no record of a tunnel.")

    def work_alone() -> None:
        with watching(session.name) as alone:
            if alone:
                work()

    _go_on(partial(_supervise, work_alone, driver, session, config), driver, session)


def _go_on(supervising: Callable[[], None], driver: Driver, session: Session) -> None:
    """Begin it anew whatever it fails with, which is said, while anything is known of a session."""
    from token_client.announce import announce  # noqa: PLC0415 - seldom needed here
    from token_client.faults import Faults  # noqa: PLC0415 - likewise

    faults = Faults(partial(_FAILED.format, session.target), announce)
    while True:
        try:
            supervising()
        except Exception as error:  # noqa: BLE001  of which nobody else would hear
            faults.tell(error)
            if not is_known(driver, session):
                return
            time.sleep(_LONGEST_PAUSE_SECONDS)
        else:
            return


def _supervise(
    work: Callable[[], None], driver: Driver, session: Session, config: ClientConfig
) -> None:
    crashes: list[float] = []
    while status := _forked(work):
        was_away = status == IPsecError.exit_status and _was_away(driver, session)
        if not is_known(driver, session):
            return  # `carnet disconnect` was faster than the worker
        if was_away and session.is_over(time.time()):
            _end_in_time(driver, session)
            return
        if was_away:
            continue
        now = time.monotonic()
        crashes = [then for then in crashes if now - then < _IN_A_ROW_SECONDS] + [now]
        if len(crashes) >= _CRASHES:
            _give_up(driver, session, config)
            return


def _was_away(driver: Driver, session: Session) -> bool:
    """Wait for an IPsec daemon that is away, as while it is started anew; tell whether one was.

    That is while the session is meant to live, with pauses that grow. A worker waits by itself
    for one that is silent, and looks at the token meanwhile.
    """
    from tenacity import Retrying, retry_if_result, wait_exponential  # noqa: PLC0415 - as below

    def tell(state: "RetryCallState") -> None:
        if state.attempt_number == _CRASHES:
            _say_it_is_away(session)

    if not is_gone(driver):
        return False
    waiting = Retrying(
        retry=retry_if_result(bool),
        stop=lambda _: _is_to_end(session) or not is_known(driver, session),
        wait=wait_exponential(multiplier=_PAUSE_SECONDS, max=_LONGEST_PAUSE_SECONDS),
        before_sleep=tell,
        retry_error_callback=lambda _: None,
    )
    waiting(is_gone, driver)
    return True


def _is_to_end(session: Session) -> bool:
    return session.is_over(time.time()) or is_to_end(session)


def _say_it_is_away(session: Session) -> None:
    from token_client.announce import announce  # noqa: PLC0415 - seldom needed here

    announce(
        f"The IPsec daemon does not answer, so the tunnel to {session.target} and its token are"
        f" not watched over until it does; start it (systemctl start strongswan, or ipsec)."
    )


def _forked(work: Callable[[], None]) -> int:
    """Have another process do it; return its exit status, negative if a signal ended it.

    Where the machine starts none, that is one that failed, a while later.
    """
    try:
        child = os.fork()
    except OSError:
        time.sleep(_PAUSE_SECONDS)
        return CarnetError.exit_status
    if child == 0:
        _be_worker(work)
    try:
        _, status = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    return os.waitstatus_to_exitcode(status)


def _be_worker(work: Callable[[], None]) -> NoReturn:
    """Work, and end without what the supervisor does at its end."""
    status = 1
    try:
        work()
        status = 0
    except CarnetError as error:
        _complain(error.sentence)
        status = error.exit_status
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BaseException:
        _complain(traceback.format_exc())
        raise
    finally:
        os._exit(status)


def _complain(what: str) -> None:
    """Say it where whoever started this hears it, and in the system's log."""
    from token_client.announce import write_down  # noqa: PLC0415 - seldom needed here

    complain(f"carnet: {what}")
    write_down(what)


def work(
    driver: Driver, session: Session, config: ClientConfig, tell: Callable[[str], None]
) -> None:
    """Watch over the tunnel, and end it where that is what the configuration says.

    One that went for good leaves its session, which ends with its time or its token.
    Why it ended stays in its record, for `carnet status`. Where that is there already, nothing
    is left to do but what the worker before did not live to do, and an end that a command has
    begun is carried out. One that nobody has seen come up is waited for. So is a daemon that is
    gone, while token and time are looked after.

    Raises IPsecError, TokenError.
    """
    from token_client.announce import announce  # noqa: PLC0415 - the worker's alone

    def say(sentence: str) -> None:
        tell(sentence)
        announce(sentence)

    at_work = _Work(driver, session, say)
    while True:
        try:
            at_work.go_on(config)
        except IPsecError:
            if not is_gone(driver):
                raise
            if not at_work.outlast_its_daemon(config):
                return
        else:
            return


class _Work:
    """The watch over a tunnel that stood, or may come up, and what follows from its end."""

    def __init__(self, driver: Driver, session: Session, say: Callable[[str], None]) -> None:
        self._driver = driver
        self._session = session
        self._say = say
        self._announced = Event()
        self._went: Ending | None = None
        """Why the tunnel went for good, as it was told last."""

    def go_on(self, config: ClientConfig) -> None:
        """Do what work() does, as long as there is a daemon. Raises IPsecError, TokenError."""
        if is_ended(self._session):
            _end(self._driver, self._session, "", self._say)
        elif _went_on_with_its_end(self._driver, self._session, self._say):
            pass
        elif not self._session.stage.is_unseen:
            self._watch_on(config)
        elif (stands := self._wait_for_it(config)) is not None:
            self._session = stands
            self.go_on(config)

    def _wait_for_it(self, config: ClientConfig) -> Session | None:
        """Return the session once its tunnel is seen to stand; None where nothing is left of it.

        The token is looked after meanwhile, however long the daemon is silent: it counts also
        where it is back by then. Raises IPsecError, TokenError.
        """
        from token_client.late import seen  # noqa: PLC0415 - seldom needed here

        found: list[Session | None] = []

        def look() -> None:
            found.append(seen(self._driver, self._session, self._say))

        watch = self._watch(config)
        ending = watch.until_told(look)
        if ending is not None:
            self._follow(ending, watch.until_told)
        return found[0] if ending is None else None

    def outlast_its_daemon(self, config: ClientConfig) -> bool:
        """Look after token and time until there is a daemon again; tell whether there is one.

        Else the session has ended meanwhile. Raises TokenError.
        """
        from token_client.daemonless import until_there_is_one  # noqa: PLC0415 - seldom needed here

        watch = self._watch(config)
        ask = partial(until_there_is_one, self._driver, self._session, self._say)
        ending = watch.until_told(ask, is_down=lambda: False)
        if ending is not None:
            self._follow(ending, watch.until_told)
            return False
        return is_known(self._driver, self._session)

    def _watch(self, config: ClientConfig) -> "Watch":
        from token_client.watch import Watch, lookout  # noqa: PLC0415 - the worker's alone

        eye = lookout(config, self._session)
        # Where the token cannot be looked at it is waited all the same.
        return Watch(
            *(self._driver, self._session, eye, config, self._say),
            lambda ending: self._follow(ending, lambda ask, **_: ask()),
            self._announced,
        )

    def _watch_on(self, config: ClientConfig) -> None:
        """Watch until nothing is left to do. Raises IPsecError, TokenError."""
        from token_client.went import why_down  # noqa: PLC0415 - the worker's alone

        watch = self._watch(config)
        went = why_down(self._session)
        if went is None:
            self._follow(watch.run(), watch.until_told)
        else:
            self._see_to_what_is_left(went, watch.until_told)

    def _follow(self, ending: "Ending", wait: "Wait") -> int:
        """Do what follows from an end; return the exit status."""
        if _went_on_with_its_end(self._driver, self._session, self._say):
            return 0
        # Else it was `carnet disconnect`: she knows.
        if not is_ended(self._session) and (ending.meant or is_known(self._driver, self._session)):
            self._bring_about(ending, wait)
        return 0

    def _bring_about(self, ending: "Ending", wait: "Wait") -> None:
        from token_client.went import keep_down  # noqa: PLC0415 - the worker's alone

        if ending.pulled or ending.over:
            _end(self._driver, self._session, ending.sentence, self._say)
            return
        self._say(ending.sentence)
        self._went = ending
        if ending.left or not keep_down(self._driver, self._session, ending):
            wait = partial(wait, is_down=self._take_out_later().is_set)
        self._see_to_what_is_left(ending, wait)

    def _take_out_later(self) -> Event:
        """Have it taken out of the kernel once a daemon answers; return what is set then.

        Why it went is remembered by then at the latest, as it is told by then.
        """
        from token_client.daemonless import take_out_of_kernel  # noqa: PLC0415 - likewise
        from token_client.went import keep_down  # noqa: PLC0415 - likewise

        out = Event()

        def take_out() -> None:
            if take_out_of_kernel(self._driver, self._session) and self._went is not None:
                keep_down(self._driver, self._session, self._went)
            out.set()

        Thread(target=take_out, daemon=True).start()
        return out

    def _see_to_what_is_left(self, ending: "Ending", wait: "Wait") -> None:
        """Have what is held back go with the session's time, and with its token."""
        from token_client.told_later import time_over, told_later  # noqa: PLC0415 - likewise

        later = wait(partial(told_later if ending.untold else time_over, self._session))
        if later is not None:
            self._follow(later, wait)
        else:
            _went_on_with_its_end(self._driver, self._session, self._say)


def _give_up(driver: Driver, session: Session, config: ClientConfig) -> None:
    """End what nobody watches over, or what is kept all the same when its time is over."""
    from token_client.announce import announce  # noqa: PLC0415 - seldom needed here

    failed = f"What watched over the tunnel to {session.target} failed again and again"
    if config.on_removal is not OnRemoval.KEEP:
        _end(driver, session, f"{failed}, so it was ended.", announce)
        return
    announce(f"{failed}; end it yourself with `carnet disconnect`.")
    while is_known(driver, session) and not _went_on_with_its_end(driver, session, announce):
        if session.is_over(time.time()):
            _end_in_time(driver, session)
            return
        time.sleep(_LONGEST_PAUSE_SECONDS)


def _end_in_time(driver: Driver, session: Session) -> None:
    """End a session whose time is over, where no worker can."""
    from token_client.announce import announce  # noqa: PLC0415 - seldom needed here
    from token_client.ending import time_is_over  # noqa: PLC0415 - likewise

    _end(driver, session, time_is_over(session).sentence, announce)


def _went_on_with_its_end(driver: Driver, session: Session, say: Callable[[str], None]) -> bool:
    """Carry out an end that somebody has begun, and could not bring to its own; tell if one was."""
    if not is_to_end(session):
        return False
    _end(driver, session, why_it_is(session), say)
    return True


def _end(driver: Driver, session: Session, why: str | None, say: Callable[[str], None]) -> None:
    """End a session, and say so, as soon as that can be, and stay until nothing of it is left.

    `why` is None where she has ended it herself, and its record is not to say so.
    """
    from token_client.announce import announce  # noqa: PLC0415 - seldom needed here
    from token_client.whole_end import WholeEnd  # noqa: PLC0415 - likewise

    end = WholeEnd(driver, session, announce)
    if not is_ended(session):
        end.carry_out(why)
        say(why or _AS_SHE_WANTED.format(session.target))
        kept = end.may_be_kept(why)
        if kept is not None:
            say(kept)
    end.clean_up()
