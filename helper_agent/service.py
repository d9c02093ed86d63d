"""Doing what a caller asks for, as far as it is hers to ask: what does which call is a table."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from carnet.ipsec.driver import Driver, TunnelEvent
from carnet.ipsec.helper import messages as said
from carnet.ipsec.inside import Inside
from carnet.ipsec.surroundings import Surroundings, look_around
from carnet.trouble import Trouble
from helper_agent.calls import blocks, inside, listed, tunnels
from helper_agent.config import HelperConfig
from helper_agent.guard import Guard
from helper_agent.inner import Inner
from helper_agent.name_servers import Servers
from helper_agent.names import Names
from helper_agent.negotiating import Negotiating
from helper_agent.owners import Owners
from helper_agent.parts import Parts
from helper_agent.virtual import Virtual

log = structlog.get_logger()

_LOOK_SECONDS = 5.0
LATE_SECONDS = 180.0
"""For one look, which waits for a daemon that is silent, and for calls that do."""

_DOERS: dict[type[said.Call], Callable[[Parts, int, Any], object]] = {
    said.Capabilities: listed.capabilities,
    said.May: tunnels.may,
    said.Install: tunnels.install,
    said.Up: tunnels.up,
    said.Confirm: tunnels.confirm,
    said.Forget: tunnels.forget,
    said.Resumes: listed.resumes,
    said.Resumable: listed.resumable,
    said.Resume: tunnels.resume,
    said.Leave: tunnels.leave,
    said.Down: tunnels.down,
    said.Status: listed.status,
    said.Installed: listed.installed,
    said.Remembered: listed.remembered,
    said.Works: listed.works,
    said.Close: blocks.close,
    said.Lift: blocks.lift,
    said.Names: listed.names,
    said.Fit: inside.fit,
    said.LeadAgain: inside.lead_again,
    said.Servers: inside.servers,
    said.Follow: inside.follow,
    said.Whose: listed.whose,
    said.Restore: inside.restore,
}


class Service:
    """What the helper does, for the caller whose user id the kernel vouches for."""

    def __init__(
        self,
        config: HelperConfig,
        driver: Driver,
        owners: Owners,
        own_addresses: Callable[[], frozenset[str]],
        inside: Inside,
        around: Callable[[int], Surroundings] = look_around,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._looking_since: float | None = None
        """When the last look began."""
        inner = Inner(driver, owners)
        names = Names(driver, owners, inside, inner)
        guard = Guard(driver, owners, self._went)
        self.parts = Parts(
            config=config,
            driver=driver,
            owners=owners,
            inside=inside,
            virtual=Virtual(config, driver, own_addresses, around),
            inner=inner,
            names=names,
            name_servers=Servers(config, driver, owners, inside, names.blocks),
            guard=guard,
            negotiating=Negotiating(driver, names, guard),
        )

    @property
    def failed(self) -> list[str]:
        """Names what is done beside the calls and is done no more; empty: it is well."""
        since = self._looking_since
        late = since is not None and self._clock() - since > LATE_SECONDS
        failed = {"guard": self.parts.guard.failed, "looks": late}
        return [name for name, has in failed.items() if has]

    def begin(self) -> None:
        """Look after what stands already, also where the daemon does not answer yet."""
        self.parts.inner.clear_in_time()
        self.parts.names.sweep()
        if self.parts.owners.names():
            self.parts.guard.begin_in_time()

    def look_on(self, enough: threading.Event, seconds: float = _LOOK_SECONDS) -> None:
        """Look now, and from now on so many seconds apart, until it is enough.

        So what nobody told of is found, and what could not be taken away at once is tried again.
        What all calls wait for one after the other is passed through: where one stays there for
        ever, this is late too.
        """
        failing = Trouble(log, "look-failed", "looked-again")
        while True:
            self._looking_since = self._clock()
            try:
                self.parts.names.pass_through()
                self.parts.name_servers.look(patient=True)
                self.parts.inner.pay()
            except Exception as error:  # noqa: BLE001  told by the log
                failing.tell_unforeseen(error)
            else:
                failing.over()
            if enough.wait(seconds):
                return

    def _went(self) -> None:
        """Take away what must not stay of a tunnel that went."""
        self.parts.name_servers.look()
        self.parts.inner.clear_in_time()

    def obey(self, uid: int, call: said.AnyCall) -> object:
        """Return the result of a call. Raises IPsecError.

        Her name servers, which it may have left without a tunnel, are looked at in any case.
        """
        try:
            return _DOERS[type(call)](self.parts, uid, call)
        finally:
            name = said.name_of(call)
            if name is not None and self.parts.owners.owns(uid, name):
                self.parts.name_servers.look(name)

    def watch(self, uid: int, driver: Driver) -> Iterator[TunnelEvent]:
        """Yield what happens to the caller's tunnels; `driver` is this watch's own."""
        events, parts = driver.watch(), self.parts
        return (parts.guard.said(each) for each in events if parts.owners.owns(uid, each.name))
