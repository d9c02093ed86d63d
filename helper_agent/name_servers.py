"""Whose name servers this machine asks: a user's only while nothing leaves for them in clear.

They are everybody's while they are asked, so she must not have them for longer than her tunnel,
whatever she calls, in whatever order, by however many threads, and wherever this is killed. The
rule is one, Servers._may_stay(). Whoever may have changed what it says looks at it afterwards, and
so does who has set them: which of the two comes last finds it as it is. What was missed all the
same is found as the helper begins, or some seconds later.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from carnet.errors import AwayError, IPsecError
from carnet.ipsec.driver import Driver
from carnet.ipsec.inside import Inside
from helper_agent.config import HelperConfig
from helper_agent.guard import is_installed
from helper_agent.limits import check_servers
from helper_agent.owners import NOT_HERS, Owners

log = structlog.get_logger()


class Servers:
    """Those of users' tunnels, set and restored by one at a time. Safe to use from several threads.

    What root has set past the helper is root's.
    """

    def __init__(
        self,
        config: HelperConfig,
        driver: Driver,
        owners: Owners,
        inside: Inside,
        blocks: Callable[[], frozenset[str]],
    ) -> None:
        """Have `blocks` return the names that have a block; it may raise IPsecError."""
        self._config = config
        self._driver = driver
        self._owners = owners
        self._inside = inside
        self._blocks = blocks
        self._lock = threading.Lock()
        self._staying: str | None = None
        """Those that could not be taken away at the last look."""

    def use(self, uid: int, name: str, servers: Sequence[str]) -> str | None:
        """Have names looked up in a tunnel of the caller's that stands; return why not, if so.

        A block alone leads nowhere. The name must not be let go meanwhile. Raises IPsecError.
        """
        installed = self._owners.installed(uid, name)
        if installed is None:
            raise IPsecError(NOT_HERS)
        check_servers(servers, installed.inside, self._config)
        if not self._stands(name):
            raise IPsecError(NOT_HERS)
        with self._lock:
            using = self._inside.whose_servers()
            if using and not self._owners.owns(uid, using):
                raise IPsecError("Another tunnel's name servers are used here; end that first.")
            trouble = self._inside.use_servers(name, servers)
            if not self._stands(name):  # whoever ended it may have found none to restore
                self._restore(name)
                raise IPsecError(NOT_HERS)
            return trouble

    def follow(self, name: str) -> None:
        """Have those of that tunnel go with it. The name must not be let go meanwhile.

        They are taken away first: whoever ends it then finds none to restore.
        """
        with self._lock:
            self._inside.follow_servers(name)
            if not self._may_stay(name, patient=True):
                self._restore(name)

    def restore(self, name: str) -> bool:
        """Take those of that tunnel away; tell whether there were any. Raises IPsecError."""
        if not self._are_of(name):
            return False
        with self._lock:
            return self._restore(name)

    def restore_unless_it_stands(self, name: str) -> None:
        """Take those of that tunnel away where its block alone keeps queries from leaving.

        Raises IPsecError.
        """
        if self._are_of(name) and not self._stands(name):
            self.restore(name)

    def look(self, name: str | None = None, *, patient: bool = False) -> None:
        """Take away what must not stay: of that tunnel, or of any.

        A daemon that is silent is waited for by who is `patient`: nothing is known to have
        happened, and what stands stands while it does nothing.
        """
        if name is not None and not self._are_of(name):
            return
        with self._lock, suppress(IPsecError):
            while (using := self._to_go(patient=patient)) is not None:
                if not self._is_restored(using):
                    self._say_that_they_stay(using)
                    return
                log.warning("name-servers-taken-away", tunnel=using)
            self._staying = None

    def _say_that_they_stay(self, name: str) -> None:
        """Say it once: whoever looks finds it again, every few seconds."""
        if name != self._staying:
            log.error("name-servers-stay", tunnel=name)
        self._staying = name

    def _to_go(self, *, patient: bool) -> str | None:
        """Return the user's tunnel whose name servers are set and must not stay."""
        using = self._inside.whose_servers()
        if using is None or using not in self._owners.names():
            return None
        return None if self._may_stay(using, patient=patient) else using

    def _may_stay(self, name: str, *, patient: bool) -> bool:
        """Tell whether queries go into that tunnel, or nowhere: its block holds them back.

        What cannot be asked is not known to be so.
        """
        if self._stands(name, if_silent=patient):
            return True
        with suppress(IPsecError):
            return self._owners.is_held(name) and name in self._blocks()
        return False

    def _stands(self, name: str, *, if_silent: bool = False) -> bool:
        """Tell whether that tunnel is up; one listing may miss one that is rekeyed."""
        try:
            return any(self._is_listed(name) for _ in range(2))
        except AwayError:
            return if_silent
        except Exception:  # noqa: BLE001  what cannot be compared is another, as the guard says
            return False

    def _is_listed(self, name: str) -> bool:
        """Tell whether it stands as it was installed: else queries may leave beside it."""
        installed = self._owners.leading(name)
        found = (live for live in self._driver.status() if live.name == name)
        return installed is not None and any(
            live.established and is_installed(live, installed) for live in found
        )

    def _are_of(self, name: str) -> bool:
        """Tell whether those of that tunnel are set: who is about to set them looks afterwards.

        So nobody waits for another user's.
        """
        return self._inside.whose_servers() == name

    def _is_restored(self, name: str) -> bool:
        with suppress(IPsecError):
            return self._restore(name)
        return False

    def _restore(self, name: str) -> bool:
        """Take away all that lie over each other."""
        restored = False
        while self._are_of(name) and self._inside.restore_servers(name):
            restored = True
        return restored
