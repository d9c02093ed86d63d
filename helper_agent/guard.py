"""Ending what comes up as another tunnel than its user installed.

strongSwan negotiates anew by itself where Target redirects it (RFC 5685) or limits the time of
its authentication (RFC 4478), and sets whatever address it is assigned then, for the whole
machine. The user's own agent looks at that too; but she and Target may be in league. So what
nobody can tell from another is ended as well, and nothing that they send keeps this from the next:
however much is told, one look is for all of it, and of SAs a tunnel has few.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from time import sleep

import structlog
from msgspec.structs import replace

from carnet.errors import AwayError, IPsecError
from carnet.ipsec.agreed import is_between, leads_to
from carnet.ipsec.driver import Change, Driver, TunnelEvent, TunnelStatus
from carnet.ipsec.patience import pauses, until_answered
from helper_agent.claims import Leading
from helper_agent.heard import Heard
from helper_agent.owners import Owners
from helper_agent.side_by_side import begin, each_of
from helper_agent.troubles import Troubles

log = structlog.get_logger()

MOST_SAS = 16
"""Of one tunnel: AH and ESP have four, and each its successors where both ends rekey it at once."""

LATE_SECONDS = 180.0
"""For one step of a look. At a daemon that is silent it is over much sooner, and tried again."""

_GONE = frozenset({Change.DOWN, Change.LOST, Change.ANOTHER})

_HEARS_NOTHING = (
    "carnet-helper is not told of tunnels just now, so it brings none up; try again soon, and have"
    " the operator of this machine look at its log if that does not help."
)


class Guard:
    """Looks at each tunnel as something of it comes or goes. Safe to use from several threads."""

    def __init__(
        self,
        driver: Driver,
        owners: Owners,
        went: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call `went` whenever a tunnel may have gone."""
        self._clock = clock
        self._driver = driver
        self._owners = owners
        self._went = went
        self._lock = threading.Lock()
        self._looking: threading.Thread | None = None
        """Follows the events."""
        self._pausing = False
        """Whether nobody does, for a while, since that has failed."""
        self._pauses = pauses()
        self._failing = Troubles(log, "guard-failed", "guard-works-again")
        self._comparing = Troubles(log, "not-compared", "compared-again")
        self._ending = Troubles(log, "not-ended", "ended-after-all")
        self._at_work: Counter[str] = Counter()
        """What a call brings up, and looks at by itself."""
        self._left_to_end: Counter[str] = Counter()
        """What a call ends."""
        self._heard = Heard()
        self._ended: set[str] = set()
        self._steps: dict[object, float] = {}
        """When each of those that are under way began."""

    @property
    def failed(self) -> bool:
        """Whether it is to follow what happens, and does not; told without waiting for anybody."""
        thread = self._looking
        is_dead = thread is not None and not thread.is_alive()
        return self._pausing or is_dead or self._hangs()

    def _hangs(self) -> bool:
        now = self._clock()
        return any(now - since > LATE_SECONDS for since in list(self._steps.values()))

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Have it known if what is done in here is never done."""
        step = object()
        self._steps[step] = self._clock()
        try:
            yield
        finally:
            del self._steps[step]

    def begin(self) -> None:
        """Look at what stands, and from now on at what comes up, unless that is done already.

        It ends with the IPsec daemon, and all tunnels with that: what comes up in another is to be
        heard of, though who followed the last may not be done yet. Raises IPsecError, also where
        it has just failed: what nobody would look at is not to come up.
        """
        with self._lock:
            if self._pausing:
                raise IPsecError(_HEARS_NOTHING)
            if self._looking is None or self._heard.is_over:
                heard = Heard()
                self._looking = begin(self._follow, self._driver.watch(), heard)
                self._heard = heard

    def begin_in_time(self) -> None:
        """Do the same, now or as soon as a daemon that is silent answers; raises nothing.

        With one that is gone all tunnels are.
        """
        try:
            self.begin()
        except AwayError:
            begin(self._begin_late)
        except IPsecError:
            self._went()

    def _begin_late(self) -> None:
        if not self._do("begin", partial(until_answered, self._begin_or_end)):
            self._begin_anew()

    def _begin_or_end(self) -> None:
        try:
            self.begin()
        except AwayError:
            raise
        except IPsecError:
            self._went()

    @contextmanager
    def apart(self, name: str) -> Iterator[None]:
        """Leave that tunnel to the call that brings it up in here; look at it afterwards.

        That is so however the call ends. Raises IPsecError.
        """
        self.begin()
        with self._lock:
            self._at_work[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work -= Counter({name: 1})
            self._look_afterwards(name)

    @contextmanager
    def ended(self, name: str) -> Iterator[None]:
        """Leave that tunnel to the call that ends it in here; look at it if that fails.

        What is told of it meanwhile asks for no look, and no list of all tunnels: none is left.
        """
        with self._lock:
            self._left_to_end[name] += 1
        is_ended = False
        try:
            yield
            is_ended = True
        finally:
            with self._lock:
                self._left_to_end -= Counter({name: 1})
            if not is_ended:
                self._heard.tell(TunnelEvent(name, Change.DOWN))

    def said(self, event: TunnelEvent) -> TunnelEvent:
        """Return an event as its user is to hear it: that we have ended the tunnel, if so."""
        ended = event.change in (Change.DOWN, Change.LOST) and event.name in self._ended
        return replace(event, change=Change.ANOTHER) if ended else event

    def _follow(self, events: Iterator[TunnelEvent], heard: Heard) -> None:
        """Do what each event asks for until there are no more: with the daemon, as a rule."""
        listens = self._do("listen", partial(begin, heard.listen, events))
        self._look_in_time()
        self._do("went", self._take_away)
        told_all = listens and self._do("hear", partial(self._hear, heard))
        self._do("went", self._take_away)
        with self._lock:
            if self._heard is heard:
                self._looking = None
        if not told_all:  # it may be there still
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Begin once a pause is over, which is longer each time that nothing was heard before."""
        done = False
        while not done:
            with self._lock:
                if self._pausing:
                    return
                self._pausing = True
            sleep(next(self._pauses))
            with self._lock:
                self._pausing = False
            done = self._do("begin", self.begin_in_time)

    def _hear(self, heard: Heard) -> None:
        while told := heard.take():
            self._failing.over(part="hear")
            self._pauses = pauses()
            if any(changes & _GONE for changes in told.values()):
                self._do("went", self._take_away)
            names = told.keys() & self._to_look_at()
            gone = frozenset(name for name in names if told[name] <= _GONE)
            if names:
                self._look_in_time(frozenset(names), gone)  # what is left may be another, too

    def _to_look_at(self) -> frozenset[str]:
        """Return what is somebody's, and that no call ends just now."""
        with self._lock:
            return self._owners.names() - self._left_to_end.keys()

    def _take_away(self) -> None:
        with self._step():
            self._went()

    def _do(self, part: str, what: Callable[[], object]) -> bool:
        """Do that, and go on whatever comes of it; tell whether it was done."""
        try:
            what()
        except Exception as error:  # noqa: BLE001  told by the log
            self._failing.tell(error, part=part)
            return False
        self._failing.over(part=part)
        return True

    def _look_in_time(
        self, names: frozenset[str] | None = None, gone: frozenset[str] = frozenset()
    ) -> None:
        """Look now, or as soon as a daemon that is silent answers; nothing happens meanwhile."""
        self._do("look", partial(until_answered, partial(self._look, names, gone)))

    def _look_afterwards(self, name: str) -> None:
        """Look now; where that cannot be, raise IPsecError, and look as soon as it can."""
        try:
            self._look(frozenset({name}))
        except AwayError:
            begin(self._look_in_time, frozenset({name}))
            raise

    def _look(
        self, names: frozenset[str] | None = None, gone: frozenset[str] = frozenset()
    ) -> None:
        """End those tunnels, or any, that are not to stand; of the `gone` something went, no more.

        Raises IPsecError.
        """
        with self._step():
            others = self._others(names, gone)
        each_of(others, self._end)

    def _others(self, names: frozenset[str] | None, gone: frozenset[str]) -> Collection[str]:
        """Return the users' tunnels, or those, if they are others than were installed.

        Those of which nobody can tell are among them, unless the daemon itself went, with all
        of the `gone`. Raises AwayError.
        """
        try:
            standing = [each for each in self._driver.status() if not names or each.name in names]
            others = [live.name for live in standing if self._is_to_end(live)]
        except AwayError:
            raise
        except Exception as error:  # noqa: BLE001  told by the log
            unknown = self._owners.names() & (names or self._owners.names())
            unknown -= gone if isinstance(error, IPsecError) else frozenset()
            if unknown:
                self._comparing.tell(error)
            return [each for each in unknown if not self._at_work[each]]
        self._comparing.over()
        return others

    def _is_to_end(self, live: TunnelStatus) -> bool:
        """Tell whether it is another than was installed; not yet, of what a call brings up.

        But no call lets one have ever more SAs, which all others would have to wait for.
        """
        is_left = self._at_work[live.name] and live.sas <= MOST_SAS
        return not is_left and self._is_another(live)

    def _is_another(self, live: TunnelStatus) -> bool:
        """Tell whether it is another than was installed; so is what cannot be compared."""
        installed = self._owners.leading(live.name)
        if installed is None:
            return False
        try:
            same = is_installed(live, installed)
        except Exception as error:  # noqa: BLE001  told by the log
            self._comparing.tell(error, tunnel=live.name)
            return True
        self._comparing.over(tunnel=live.name)
        return not same

    def _end(self, name: str) -> None:
        with self._lock:
            self._ended = self._ended & self._owners.names() | {name}
        try:
            with self._step():
                self._driver.down(name)
        except Exception as error:
            self._ending.tell(error, tunnel=name)
            raise
        self._ending.over(tunnel=name)
        log.warning("ended-as-another", tunnel=name)


def is_installed(live: TunnelStatus, installed: Leading) -> bool:
    """Tell whether what stands leads where its user had it lead, and all of that.

    So it does not by ever more SAs. Raises whatever comes of what cannot be compared.
    """
    if live.sas > MOST_SAS:
        return False
    between = is_between(live, installed.virtual_address, installed.targets)
    return between and leads_to(live, installed.networks)
