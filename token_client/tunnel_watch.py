"""What becomes of a tunnel, as its daemon tells it.

It has threads of its own, so that nothing of it holds up whoever looks after the token: not
a peer that is silent as the tunnel comes back, nor a Host that is asked why it went down.
Nor does either hold up the comparing of what stands with what was agreed.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import NoReturn

from carnet.errors import AwayError, HelperAwayError, IKERefusedError, IPsecError
from carnet.ipsec.driver import Change, Driver, TunnelEvent, TunnelStatus
from carnet.ipsec.inside.route_changes import RouteChanges
from carnet.ipsec.iproute import is_left
from carnet.ipsec.patience import until_answered
from token_client import left_behind, mtu, name_servers, unheard
from token_client.coming_back import ComingBack
from token_client.ending import Ending, why_ended
from token_client.known import Meant, is_gone
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.returning import ANOTHER, end_another
from token_client.sessions import SessionStore

_UNTOLD = (
    "The tunnel to {} went down, and Target does not say why; ask its operator, or run"
    " `carnet connect` for a new one."
)
_WITH_DAEMON = (
    "The tunnel to {} went down with this machine's own IKE daemon, which does not answer or was"
    " started anew; run `carnet connect` for a new one."
)
_WITHOUT_DAEMON = (
    "The tunnel to {} went out of sight with this machine's own IKE daemon, which is gone: the"
    " kernel may carry it on until the session ends; start the daemon (systemctl start strongswan,"
    " or ipsec), and run `carnet connect` for a new one."
)

_LEFT = (
    "The tunnel to {} stands at an address that this machine has no more; it is being brought back."
)
_LEFT_FOR_GOOD = (
    "The tunnel to {} stands at an address that this machine has no more, and does not come back by"
    " itself; run `carnet connect` for a new one, with the next key pair."
)

Happening = Callable[[], Ending | None]
"""What is done about something that happened; it returns why the tunnel has ended, if so."""


class TunnelWatch:
    """Watches one tunnel until it has ended, which `over` is told once, or stop().

    `over` is told what cannot go on, too: an error is to be raised by whoever hears of it.
    Where `resume` is False nothing is brought back.
    """

    def __init__(
        self,
        driver: Driver,
        session: Session,
        tell: Callable[[str], None],
        over: Callable[[Ending | Exception], None],
        *,
        resume: bool,
    ) -> None:
        self._driver = driver
        self._session = session
        self._told_to = tell
        self._over = over
        self._resume = resume
        self._happened: SimpleQueue[Happening] = SimpleQueue()
        self._stopped = threading.Event()
        self._lost = False
        """Target was silent, and the tunnel has not come back yet."""
        self.is_down = False
        """Whether it went, for good or not, and was not seen to stand since."""
        self.meant: Meant | None = None
        """Whether the session was meant to live as the tunnel went; None while it stands."""

    def start(self) -> None:
        """Begin to listen. Raises IPsecError."""
        import ssl  # noqa: PLC0415  for most commands it is left for later

        # It is loaded as it is first used (carnet.entry), which is not for two threads at once.
        _ = ssl.OPENSSL_VERSION
        changes = self._listen()
        self._follower = threading.Thread(target=self._follow, args=(changes,), daemon=True)
        self._follower.start()
        threading.Thread(target=self._work, daemon=True).start()
        looking = (self._live, self._ask_whether_it_ended, time.monotonic, self._stopped)
        threading.Thread(target=unheard.look_on, args=looking, daemon=True).start()
        self._routes = RouteChanges()
        moving = (self._is_left, self._tell_it_is_left, self._routes, self._stopped)
        threading.Thread(target=left_behind.look_on, args=moving, daemon=True).start()

    def stop(self) -> None:
        """Let it be; what is under way comes to its end by itself, and nothing follows from it."""
        self._stopped.set()
        self._routes.stop()
        self._happened.put(lambda: None)
        self._driver.close()
        self._follower.join()

    def _listen(self) -> Iterator[TunnelEvent] | None:
        """Return what happens from now on; None where nobody can say yet. Raises IPsecError."""
        with suppress(AwayError):
            return self._driver.watch()
        return None

    def _follow(self, changes: Iterator[TunnelEvent] | None) -> None:
        """Hear of the tunnel until the daemon is gone.

        The end of what carnet-helper tells is neither: it is called until it answers again.
        """
        try:
            self._hear_on(changes)
        except IPsecError:
            pass
        except Exception as error:  # noqa: BLE001  raised by whoever hears of it
            self._happened.put(partial(_raise, error))
            return
        self._happened.put(partial(self._went_down, with_daemon=True))

    def _hear_on(self, changes: Iterator[TunnelEvent] | None) -> None:
        """Return when the daemon is gone, however often the helper goes and comes."""
        while True:
            try:
                self._hear(changes)
            except HelperAwayError:
                changes = until_answered(self._driver.watch, self._stopped)
            else:
                return
            if self._stopped.is_set():
                self._driver.close()
            self._happened.put(self._ask_anew)

    def _hear(self, changes: Iterator[TunnelEvent] | None) -> None:
        """Return when the daemon is gone; raises HelperAwayError if nobody tells of it."""
        if changes is None:
            raise HelperAwayError("carnet-helper does not answer.")
        for event in changes:
            if event.name == self._session.name:
                self._happened.put(self._done_about(event.change))

    def _done_about(self, change: Change) -> Happening:
        return {
            Change.UP: self._came_up,
            Change.ANEW: self._came_up,
            Change.ANOTHER: self._was_another,
            Change.DOWN: self._was_deleted,
            Change.LOST: self._was_lost,
        }[change]

    def _work(self) -> None:
        try:
            ending = self._ask_first()
            while ending is None and not self._stopped.is_set():
                ending = self._happened.get()()
        except Exception as error:  # noqa: BLE001  raised by whoever hears of it
            self._over(error)
        else:
            if ending is not None:
                self._over(ending)

    def _ask_first(self) -> Ending | None:
        with self._asked_anew():
            return self._ask()
        return None

    @contextmanager
    def _asked_anew(self) -> Iterator[None]:
        """Have it asked what has become of the tunnel when helper and daemon answer again.

        A helper that only stood still goes on telling of events as if nothing had been.
        """
        try:
            yield
        except AwayError:
            threading.Thread(target=self._ask_when_it_answers, daemon=True).start()

    def _ask_when_it_answers(self) -> None:
        with suppress(IPsecError):
            until_answered(self._driver.status, self._stopped)
        self._happened.put(self._ask_anew)

    def _ask(self) -> Ending | None:
        """Ask what has become of the tunnel while nobody watched; return why it has ended.

        Raises IPsecError.
        """
        live = self._live()
        if live is not None and live.established:
            return self._end_another(live)
        if self._session.name not in self._driver.resumable():
            return self._went_down()
        return self._was_lost()

    def _ask_anew(self) -> Ending | None:
        """Ask as the helper is back; where its daemon goes again, that is told."""
        with suppress(IPsecError), self._asked_anew():
            ending = self._ask()
            if ending is None:
                mtu.lead(self._driver, self._session)
                mtu.fit(self._session)
            return ending
        return None

    def _live(self) -> TunnelStatus | None:
        """Return what there is of the tunnel, which may be less than the whole."""
        return next((one for one in self._driver.status() if one.name == self._session.name), None)

    def _came_up(self) -> Ending | None:
        """Compare what stands, or a part of it. Raises IPsecError."""
        self._wait_for_leave()
        with self._asked_anew():
            return self._end_another(self._live())
        return None

    def _end_another(self, live: TunnelStatus | None) -> Ending | None:
        """End what is another than was agreed, and return why; use what stands."""
        try:
            if live is not None:
                end_another(self._driver, self._session, live)
        except IKERefusedError as error:
            return Ending(error.sentence)
        if live is not None and live.established:
            self.is_down = False
            name_servers.use_again(self._session)
        return None

    def _was_another(self) -> Ending:
        """Take carnet-helper's word, which has ended it."""
        return Ending(ANOTHER.format(self._session.target))

    def _was_deleted(self) -> Ending | None:
        """Tell the end of the tunnel from that of an IKE_SA, whose place another has taken.

        Where it is lost, what ended is a try to come back. Where nothing is negotiated anew,
        as with IKEv1, an IKE_SA that is left may bring it up again while Host is asked.
        """
        self._wait_for_leave()
        if self._lost:
            return None
        with self._asked_anew():
            live = self._standing()
            ending = self._went_down() if live is None else None
            live = live or self._standing()
            return ending if live is None else self._end_another(live)
        return None

    def _standing(self) -> TunnelStatus | None:
        """Return what stands whole; None where there is none, or the daemon is gone.

        Raises AwayError where that is not known.
        """
        try:
            live = self._live()
        except AwayError:
            raise
        except IPsecError:
            return None
        return live if live is not None and live.established else None

    def _is_left(self) -> bool:
        """Tell whether it stands at an address that this machine has no more. Raises IPsecError."""
        live = None if self._lost else self._live()
        return bool(
            live
            and live.established
            and is_left(live.local_address, live.remote_address, live.virtual_address)
        )

    def _tell_it_is_left(self) -> None:
        self._happened.put(self._was_left)

    def _was_left(self) -> Ending | None:
        """Have it brought back from there, if it has not moved and that can be."""
        self._wait_for_leave()
        with self._asked_anew():
            if not self._is_left():
                return None
            comes_back = self._resume and self._session.name in self._driver.resumable()
            self._tell((_LEFT if comes_back else _LEFT_FOR_GOOD).format(self._session.target))
            return self._was_lost() if comes_back else None
        return None

    def _was_lost(self) -> Ending | None:
        """Have it brought back meanwhile, unless that is under way."""
        if not self._resume:
            return self._went_down()
        if not self._lost:
            self._lost = self.is_down = True
            meant = self.meant = Meant(self._driver, self._session)
            threading.Thread(target=self._bring_back, args=(meant,), daemon=True).start()
        return None

    def _bring_back(self, meant: Meant) -> None:
        signed, enough = partial(self._told, meant), self._stopped
        try:
            ending = ComingBack(self._driver, self._session, self._tell, signed, enough).run()
        except Exception as error:  # noqa: BLE001  raised by whoever hears of it
            self._happened.put(partial(_raise, error))
        else:
            self._happened.put(partial(self._came_back, meant, ending))

    def _came_back(self, meant: Meant, ending: Ending | None) -> Ending | None:
        """Look whether it still stands, or leave nothing of what never comes back."""
        self._lost = False
        if ending is None:
            return self._ask_first()
        self._leave_nothing()
        return replace(ending, meant=bool(meant))

    def _ask_whether_it_ended(self) -> bool:
        """Ask Host why the tunnel is silent; return whether Target has ended it."""

        def is_wanted() -> bool:
            return not (self.is_down or self._stopped.is_set())

        told = why_ended(self._session, is_wanted, once=True) if is_wanted() else None
        if told is not None:
            self._happened.put(partial(self._was_ended_there, told))
        return told is not None

    def _was_ended_there(self, told: Ending) -> Ending | None:
        """Take Target's word that it has ended the tunnel, of which this end did not hear."""
        self._wait_for_leave()
        if self.is_down:
            return None  # the daemon has told so meanwhile
        self.is_down = True
        meant = self.meant = Meant(self._driver, self._session)
        with suppress(IPsecError):
            self._driver.down(self._session.name)
        return replace(told, meant=bool(meant))

    def _went_down(self, *, with_daemon: bool = False) -> Ending:
        """Return why the tunnel is down, having seen to it that the daemon brings none back.

        Where this machine's own daemon is gone, or knows of it no more and nobody has ended it
        here, Target has but lost sight of it, whatever it says, unless that the session is over.
        """
        self.is_down = True
        meant = self.meant = Meant(self._driver, self._session)
        ours = with_daemon or self._is_forgotten()
        self._leave_nothing()
        told = self._told(meant)
        ours = ours and bool(meant)
        left = ours and not self._is_out_of_kernel()
        if told is None or (ours and not told.over):
            told = Ending(self._why(ours=ours), untold=told is None)
        return replace(told, meant=bool(meant), left=left)

    def _why(self, *, ours: bool) -> str:
        """Return why it went, as far as it is known here; `ours` is whether by the daemon."""
        gone = ours and is_gone(self._driver)
        sentence = _WITHOUT_DAEMON if gone else _WITH_DAEMON if ours else _UNTOLD
        return sentence.format(self._session.target)

    def _is_forgotten(self) -> bool:
        """Tell whether the IKE daemon of this machine is gone, or was started anew meanwhile."""
        try:
            return self._session.name not in self._driver.remembered()
        except AwayError:
            return False
        except IPsecError:
            return True

    def _leave_nothing(self) -> None:
        """Have the daemon forget what it could negotiate anew by itself, as far as it is there."""
        with suppress(IPsecError):
            name = self._session.name
            if not self._stopped.is_set() and name in self._driver.resumable():
                self._driver.down(name)

    def _is_out_of_kernel(self) -> bool:
        """Take out what a daemon that went has left there, if one answers without the tunnel.

        None could negotiate it anew, nor hear that Target ends it. Tells whether nothing is left
        to take out; one that does not answer, or fails, is not waited for in here.
        """
        with suppress(IPsecError):
            if self._stopped.is_set() or self._standing() is not None:
                return True
            if not is_gone(self._driver):
                self._driver.down(self._session.name)
                return True
        return False

    def _told(self, meant: Meant) -> Ending | None:
        """Return what Target has signed of the session's end; None where it says nothing.

        Nobody wants to know after `carnet disconnect`.
        """
        return why_ended(self._session, lambda: bool(meant) and not self._stopped.is_set())

    def _wait_for_leave(self) -> None:
        """Let `carnet disconnect` end what it is ending: it takes leave of Target by the tunnel."""
        SessionStore(memory_directory()).wait_for_leave(self._session.name)

    def _tell(self, sentence: str) -> None:
        if not self._stopped.is_set():
            self._told_to(sentence)


def _raise(error: Exception) -> NoReturn:
    raise error
