"""Step 10 and after: what the table asks for while a tunnel waits, stands and ends."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet import crash
from carnet.database import reason_of
from carnet.errors import AwayError, IKESilentError, IPsecError
from carnet.exchange import target as step
from carnet.exchange import target_actions as do
from carnet.exchange.machine import Action, Event
from carnet.ipsec.driver import Limiting
from carnet.ipsec.drivers import makers
from carnet.ipsec.spec import SECRET_LENGTH, Role, TunnelSpec, comes_back
from carnet.objectives import Objective
from carnet.trouble import Trouble
from carnet.tunnel import tunnel_name, tunnel_spec
from carnet.wire.messages import TunnelingInfo
from carnet.wire.session_key import SessionSecrets
from target_agent.alarm import Alarm
from target_agent.downing import down
from target_agent.parts import Parts

log = structlog.get_logger()

REMOVE_AGAIN_SECONDS = 1.0
"""After a removal that the IKE daemon refused; one that is away is waited for besides."""
LOOK_AGAIN_SECONDS = 1.0
"""After a look at which the IKE daemon was silent, or amid a rekeying."""

RESTART = "restart"
DAEMON_RESTARTED = "ike-daemon-restarted"
PEER_CLOSED = "peer-closed"
_FOUND_GONE = frozenset({RESTART, DAEMON_RESTARTED})
"""Why it ended, where nobody saw that: somebody may have meant it to end before."""
_MEANT = frozenset({"revoked", "ended-by-operator", "user-removed", "expired"})

_NO_SECRET = bytes(SECRET_LENGTH)
_NO_SECRETS = SessionSecrets(psk=_NO_SECRET, ppk=_NO_SECRET, ah_psk=_NO_SECRET, ah_ppk=_NO_SECRET)
"""For a spec that is compared and never installed: what was agreed has no secrets in it."""


class LiveTunnel:
    """A tunnel that was granted, as far as Target remembers it: without its secrets.

    `prepared_at` is in seconds since 1970. From an earlier run, as far as they are known:
    `driver` is the name of the one that it was made with, `end_reason` why it is to end.
    """

    def __init__(
        self,
        parts: Parts,
        request_id: bytes,
        info: TunnelingInfo,
        prepared_at: float,
        driver: str | None,
        end_reason: str | None = None,
    ) -> None:
        self._parts = parts
        self._driver = driver
        self._request_id = request_id
        self._name = tunnel_name(request_id)
        self._info = info
        self._prepared_at = prepared_at
        self._timer: Alarm | asyncio.TimerHandle | None = None
        self._end_reason = end_reason
        self._end_is_written = end_reason is not None
        self.is_away = False
        """Whether the Client went silent, and has not come back."""
        self._log = log.bind(request_id=request_id.hex())
        self._unrecorded = Trouble(self._log, "not-recorded", "recorded-again")
        self._unremoved = Trouble(self._log, "not-removed", "removed")

    @property
    def objective(self) -> Objective:
        """What the tunnel is made of."""
        return Objective(self._info.objective_id)

    @property
    def end_is_written(self) -> bool:
        """Whether no restart forgets that it is to end, and why."""
        return self._end_is_written

    @property
    def may_come_back(self) -> bool:
        """Whether the session goes on without an SA, until its time is over."""
        within = self._parts.config.tunnels.resume_within
        kept = within > 0 and self._parts.driver.resumes
        return kept and comes_back(self.objective, self._info.ike_version)

    async def perform(self, action: Action) -> Event | None:
        """Carry out one action; return the event that follows from it."""
        return await PERFORMERS[type(action)](self, action)

    async def await_ike(self, _: do.AwaitIKE) -> None:
        """Withdraw it if nobody comes in time."""
        last = min(self._prepared_at + self._info.initiate_within, self._info.expires)
        self._over_at(last, "unused")

    async def confirm(self, _: do.ConfirmTunnel) -> Event | None:
        """Compare what came up with what was agreed; without IPsec, open the gate then.

        A daemon that is silent is asked again, as of a tunnel that is just being rekeyed: nothing
        says yet that it is another. For one that was never confirmed that ends when nobody is
        waited for any more.
        """
        try:
            status = await self._parts.ask(self._parts.driver.confirm, self._spec())
            await self.let_through(status.remote_address)
        except IKESilentError:
            # As one does who comes back to take leave.
            return step.Over(PEER_CLOSED)
        except AwayError:
            self.is_away = False  # she has come back, if she was
            self._look_again()
            return None
        except IPsecError as error:
            return self._not_confirmed(error)
        self.is_away = False
        crash.reach("target.confirmed")
        return step.TunnelConfirmed()

    async def check(self, action: do.CheckTunnel) -> Event | None:
        """End it if it has too many SAs; compare it as confirm() does, unless it is coming up."""
        driver = self._parts.driver
        try:
            if isinstance(driver, Limiting):
                await self._parts.ask(driver.refuse_many, self._name)
        except AwayError:
            self._look_again()
            return None
        except IPsecError as error:
            return self._not_confirmed(error)
        if self.is_away or not action.whole:
            return None
        return await self.confirm(do.ConfirmTunnel())

    def _look_again(self) -> None:
        self._parts.later(LOOK_AGAIN_SECONDS, self._request_id, step.CameAnew())

    def _not_confirmed(self, error: IPsecError) -> Event:
        self._log.warning("not-confirmed", reason=error.sentence)
        return step.Over("not-confirmed")

    async def let_through(self, address: str) -> None:
        """Open the gate for a session without IPsec, at the address that IKE has proved.

        Raises IPsecError if the packet filter refuses.
        """
        gate = self._parts.gate
        if Objective(self._info.objective_id) is not Objective.NATIVE or gate is None:
            return
        own = tuple(str(ip_network(each)) for each in self._info.target_addresses)
        networks, until = self._info.networks or own, self._info.expires
        await self._parts.ask(gate.open, self._name, address, networks, until)

    async def shut_out(self) -> None:
        """Take back what let_through() gave. Raises IPsecError."""
        if self._parts.gate is not None:
            await self._parts.ask(self._parts.gate.close, self._name)

    async def forget_secrets(self, _: do.ForgetSecrets) -> Event | None:
        """Step 10: the pre-shared keys leave the IKE daemon, once it answers.

        Where the Client may come back, that is with the end of her session.
        """
        try:
            if not self.may_come_back:
                await self._parts.ask(self._parts.driver.forget_secrets, self._name)
        except AwayError:
            self._look_again()
            return None
        except IPsecError as error:
            self._log.warning("secrets-not-forgotten", reason=error.sentence)
            return step.Over("secrets-not-forgotten")
        crash.reach("target.secrets-forgotten")
        return step.SecretsForgotten()

    async def record_established(self, _: do.RecordEstablished) -> Event:
        """Write down that it stands."""
        try:
            await asyncio.to_thread(self._parts.records.establish, self._request_id)
        except SQLAlchemyError as error:
            self._unrecorded.tell(reason_of(error))
            return step.NotRecorded("not-recorded")
        crash.reach("target.established")
        self._log.info("established")
        return step.EstablishedRecorded()

    async def await_expiry(self, _: do.AwaitExpiry) -> None:
        """End it when the session's time is over."""
        self._over_at(self._info.expires, "expired")

    async def await_return(self, _: do.AwaitReturn) -> None:
        """End the session of a Client who does not come back in time."""
        self._log.info("peer-lost")
        self.is_away = True
        last = time.time() + self._parts.config.tunnels.resume_within
        if last < self._info.expires:
            self._over_at(last, "peer-lost")

    async def remove(self, action: do.RemoveTunnel) -> Event:
        """Take all of it out of the IKE daemon."""
        reason = self._settle(action.reason)
        self._stop_timer()
        try:
            await self._parts.end(self._take_out)
        except IPsecError as error:
            self._unremoved.tell(error.sentence)
            self._over_again(reason)
            return step.NotRemoved(reason)
        self._unremoved.over()
        crash.reach("target.removed")
        return step.TunnelRemoved(reason)

    def _settle(self, reason: str) -> str:
        """Return why it ends: the first reason counts, or why it was meant to.

        That is heard late where Target was started anew before it could write it down: by
        then the tunnel is found gone.
        """
        found_gone = self._end_reason in _FOUND_GONE and not self._end_is_written
        if self._end_reason is None or (found_gone and reason in _MEANT):
            self._end_reason = reason
        return self._end_reason

    def daemon_gone(self) -> None:
        """Hear that the IKE daemon went before the tunnel was taken out of it.

        One that is stopped ends all its tunnels, and tells of that as if the peers had.
        """
        if self._end_reason == PEER_CLOSED:
            self._end_reason = DAEMON_RESTARTED

    async def record_ending(self, action: do.RecordEnding) -> None:
        """Write down that it is to end; what fails is written with the next try to remove it."""
        reason = self._settle(action.reason)
        try:
            await asyncio.to_thread(self._parts.records.doom, self._request_id, reason)
            crash.reach("target.doomed")
            self._end_is_written = True
            self._unrecorded.over()
        except SQLAlchemyError as error:
            self._unrecorded.tell(reason_of(error))

    def _take_out(self) -> None:
        if self._parts.gate is not None:
            self._parts.gate.close(self._name)
        parts = self._parts
        down(makers(self._driver, parts.driver, parts.config.drivers), self._name)

    async def record_ended(self, action: do.RecordEnded) -> Event:
        """Write down that it ended; only then is its address free again."""
        reason = self._settle(action.reason)
        try:
            await asyncio.to_thread(self._parts.records.end, self._request_id, reason)
        except SQLAlchemyError as error:
            self._unrecorded.tell(reason_of(error))
            self._over_again(reason)
            return step.NotRecorded("not-recorded")
        crash.reach("target.ended")
        self._unrecorded.over()
        self._parts.pools.give_back(self._info.virtual_address)
        self._log.info("ended", reason=reason)
        return step.EndRecorded()

    def _over_again(self, reason: str) -> None:
        self._stop_timer()
        event = step.Over(reason)
        self._timer = self._parts.later(REMOVE_AGAIN_SECONDS, self._request_id, event)

    def _over_at(self, moment: float, reason: str) -> None:
        self._stop_timer()
        self._timer = self._parts.feed_at(moment, self._request_id, step.Over(reason))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _spec(self) -> TunnelSpec:
        lifetime = max(1, self._info.expires - int(time.time()))
        return tunnel_spec(
            Role.TARGET,
            self._request_id,
            self._info,
            _NO_SECRETS,
            lifetime,
            allow_weak=self._parts.config.tunnels.insecure_benchmark_suites,
        )


Performer = Callable[[LiveTunnel, Any], Awaitable[Event | None]]

PERFORMERS: dict[type[Action], Performer] = {
    do.AwaitIKE: LiveTunnel.await_ike,
    do.ConfirmTunnel: LiveTunnel.confirm,
    do.CheckTunnel: LiveTunnel.check,
    do.ForgetSecrets: LiveTunnel.forget_secrets,
    do.RecordEstablished: LiveTunnel.record_established,
    do.AwaitExpiry: LiveTunnel.await_expiry,
    do.AwaitReturn: LiveTunnel.await_return,
    do.RemoveTunnel: LiveTunnel.remove,
    do.RecordEnding: LiveTunnel.record_ending,
    do.RecordEnded: LiveTunnel.record_ended,
}
