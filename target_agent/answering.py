"""Steps 4, 5 and 6 carried out for one request: what the table asks for until the reply."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from msgspec.structs import replace
from sqlalchemy.exc import SQLAlchemyError

from carnet import crash
from carnet.database import readers, reason_of
from carnet.errors import IPsecError
from carnet.exchange import target as step
from carnet.exchange import target_actions as do
from carnet.exchange.machine import Action, Event
from carnet.ipsec.driver import Capabilities
from carnet.ipsec.spec import Mode, Role
from carnet.objectives import Objective
from carnet.tunnel import tunnel_name, tunnel_spec
from carnet.wire.control import TunnelAnswer, TunnelGrant
from carnet.wire.fault import WireError
from carnet.wire.fields import printable
from carnet.wire.messages import RefusalCode, Request, TunnelingInfo
from carnet.wire.session_key import SessionBinding, make_session_key
from carnet.wire.suites import numbers_of
from target_agent.access import AccessDeniedError, AccessEntry, Carriage, Terms, authorize
from target_agent.evidence import EvidenceError, proved_request
from target_agent.parts import Parts
from target_agent.records import Asking, TunnelRecord
from target_agent.tunneling import tunneling_info

log = structlog.get_logger()

WATCHED_SECONDS = 3.0
"""For which a daemon that answers may not be watched yet: some attempts at it."""

_UNWATCHED = "What happens in the IKE daemon cannot be heard yet; try again."
_OVER = "The tunnel is over ({}); connect again."
_USED_BEFORE = (
    "This key pair was used before{}; take another, and tell the operator of Host, whose Key "
    "Database may have been put back."
)


class Answering:
    """One request on its way to its answer; `outcome` is set as soon as Host can have it.

    `request_id` is what Host's statement claims; `request` is None until the
    Client's signature has proved it.
    """

    def __init__(self, parts: Parts, asking: Asking, request_id: bytes) -> None:
        self._parts = parts
        self._asking = asking
        self.request_id = request_id
        self.request: Request | None = None
        self.entries: tuple[AccessEntry, ...] = ()
        self.grant: TunnelGrant | None = None
        self.answer: TunnelAnswer | None = None
        self.deferred: str | None = None
        self._address: str | None = None
        self.outcome = "deferred"
        """For the metrics: what came of it."""
        self.timings: dict[str, float] = {}
        self.abandoned = False
        """Whether something may be left in the IKE daemon that only a sweep takes back."""
        self._log = log.bind(
            request_id=request_id.hex(), user_id=asking.statement.user_id, host=asking.host
        )

    async def perform(self, action: Action) -> Event | None:
        """Carry out one action; return the event that follows from it."""
        started = time.perf_counter()
        event = await PERFORMERS[type(action)](self, action)
        if type(action) in _STEPS:
            number = _STEPS[type(action)]
            elapsed = (time.perf_counter() - started) * 1000
            self.timings[number] = self.timings.get(number, 0.0) + elapsed
        if type(action) in _OBSERVED:
            observe = self._parts.metrics.step_seconds[_OBSERVED[type(action)]]
            observe(time.perf_counter() - started)
        return event

    async def look_up(self, action: do.LookUp) -> Event:
        """Find what this Request ID led to before, and whether its key pair led to anything."""
        records = self._parts.records
        record = await readers.ask(records.find, self.request_id)
        if record is not None:
            return self._seen_before(record)
        earlier = await readers.ask(records.of_pair, self._asking.key_id)
        if earlier is not None:
            # Host spends a pair once: it has forgotten, or there are two of it. What another
            # Host asked for is not told.
            own = earlier.host == action.host
            which = f", for request {earlier.request_id.hex()}" if own else ""
            return self._denied(RefusalCode.EVIDENCE, _USED_BEFORE.format(which))
        return step.RequestNew(action.request, action.host)

    def _seen_before(self, record: TunnelRecord) -> Event:
        if not record.is_of(self._asking):
            reason = "This Request ID came before, with other evidence; ask the operator of Host."
            return self._denied(RefusalCode.EVIDENCE, reason)
        if record.end_reason is not None:
            return self._denied(RefusalCode.TOO_LATE, _OVER.format(record.end_reason))
        self.outcome = "repeated"
        return step.AnswerKnown(record.tunnel_answer)

    async def verify_evidence(self, action: do.VerifyEvidence) -> Event:
        """Step 4: the Client's signature holds, and Host may speak for her."""
        try:
            suites = numbers_of(self._parts.config.suites)
            self.request = proved_request(action.request, action.host, suites)
        except EvidenceError as error:
            return self._denied(RefusalCode.EVIDENCE, str(error))
        return step.EvidenceTrue(self.request)

    async def authorize(self, action: do.Authorize) -> Event:
        """Step 4: membership, then the access control list.

        What an operator has ended is not made, though it was asked for before.
        """
        parts, request = self._parts, action.request
        over = await readers.ask(parts.orders.reason_to_end, request.request_id)
        if over is not None:
            return self._denied(RefusalCode.TOO_LATE, _OVER.format(over))
        member = await readers.ask(parts.members.find, request.user_id)
        try:
            capabilities = await self._parts.ask(parts.driver.capabilities)
            terms = authorize(request, member, self._carriage(capabilities))
            if capabilities.userspace:
                await asyncio.to_thread(self._check_reach, terms)
        except IPsecError as error:
            return step.NotInstalled(error.sentence)
        except AccessDeniedError as error:
            return self._denied(error.code, error.reason)
        self.entries = terms.entries
        return step.Authorized(request, terms)

    def _check_reach(self, terms: Terms) -> None:
        """Refuse here what the IKE daemon would, without a word of why."""
        out_of_reach = self._parts.reach.out_of_reach(terms.networks)
        if out_of_reach:
            raise AccessDeniedError(
                RefusalCode.CANNOT_CARRY,
                f"{self._parts.config.name} has no address of its own in"
                f" {', '.join(out_of_reach)}, which its userspace ESP takes; ask for a wider"
                " network (--network), or its operator.",
            )

    def _carriage(self, capabilities: Capabilities) -> Carriage:
        parts, tunnels = self._parts, self._parts.config.tunnels
        gate = parts.config.gate
        if gate is None:
            with_ipsec = tuple(o for o in capabilities.objectives if o is not Objective.NATIVE)
            capabilities = replace(capabilities, objectives=with_ipsec)
        return Carriage(
            target=parts.config.name,
            addresses=tunnels.addresses,
            ip_versions=parts.pools.versions,
            capabilities=capabilities,
            guards_itself=gate is not None and bool(gate.ports),
            require_ppk=tunnels.require_ppk,
            allow_ikev1=tunnels.allow_ikev1,
        )

    async def install(self, action: do.InstallTunnel[Terms]) -> Event:
        """Step 5: a fresh session key, and this side of the tunnel in the IKE daemon.

        Not while nobody hears what happens there: a tunnel that came up and went meanwhile
        would be taken for one that is waited for.
        """
        if not await self._is_watched():
            return step.NotInstalled(_UNWATCHED)
        parts, address = self._parts, None
        if action.terms.mode is Mode.TUNNEL:
            address = parts.pools.take_for(action.terms.networks)
            self._address = address
            if address is None:
                reason = f"{parts.config.name} has no address left for a tunnel; try again later."
                return self._denied(RefusalCode.NO_ADDRESS, reason)
        info = tunneling_info(action.terms, parts.config.tunnels, address, int(time.time()))
        try:
            self.grant = await self._parts.ask(
                self._give_to_daemon, action.request, info, action.terms.lifetime
            )
        except WireError as error:
            self._give_back_address()
            return self._denied(RefusalCode.EVIDENCE, f"{error}; update this program.")
        except IPsecError as error:
            # A daemon that was silent carries out what it was told once it goes on.
            await self._take_back()
            return step.NotInstalled(error.sentence)
        crash.reach("target.installed")
        return step.TunnelInstalled(self.grant)

    async def _is_watched(self) -> bool:
        """Wait a moment for it: the IKE daemon may have started just now."""
        try:
            async with asyncio.timeout(WATCHED_SECONDS):
                return await self._parts.watched.wait()
        except TimeoutError:
            return False

    def _give_to_daemon(self, request: Request, info: TunnelingInfo, lifetime: int) -> TunnelGrant:
        """Make the secrets and hand them over; nothing here keeps them."""
        binding = SessionBinding(
            request_id=request.request_id,
            user_id=request.user_id,
            target=request.request_info.target,
            objective_id=request.objective_id,
        )
        sealed, secrets = make_session_key(request.request_info.ephemeral_key, binding)
        allow_weak = self._parts.config.tunnels.insecure_benchmark_suites
        spec = tunnel_spec(
            Role.TARGET,
            request.request_id,
            info,
            secrets,
            lifetime,
            allow_weak=allow_weak,
            dead_peer_seconds=self._parts.config.tunnels.dead_peer_seconds,
        )
        self._parts.driver.install(spec)
        return TunnelGrant(request_id=request.request_id, session_key=sealed, tunneling_info=info)

    async def record(self, action: do.Record) -> Event:
        """Write the answer down before anybody sees it."""
        try:
            await asyncio.to_thread(self._write, action.answer)
        except SQLAlchemyError as error:
            self._log.warning("not-recorded", reason=reason_of(error))
            return step.NotRecorded("the record could not be written")
        if isinstance(action.answer, TunnelGrant):
            crash.reach("target.prepared")
            self.outcome = "granted"
        else:
            crash.reach("target.refused")
            self.outcome = str(action.answer.code)
        return step.Recorded(action.answer)

    def _write(self, answer: TunnelAnswer) -> None:
        """Give a row to what the Client herself signed; to all else, a line in the accounts."""
        records = self._parts.records
        if isinstance(answer, TunnelGrant) and self.request is not None:
            driver = self._parts.driver.name
            records.prepare(self._asking, self.request, answer, self.entries, driver)
            self._log.info("prepared", address=answer.tunneling_info.virtual_address)
        elif not isinstance(answer, TunnelGrant) and self.request is not None:
            records.refuse(self._asking, self.request, answer)
        elif not isinstance(answer, TunnelGrant):
            records.refuse_unproved(self._asking, answer)

    async def withdraw(self, _: do.Withdraw) -> None:
        """Take back a tunnel of which nobody was told."""
        if self.grant is not None:
            await self._take_back()

    async def _take_back(self) -> None:
        """Leave nothing in the IKE daemon; where it refuses, that is left to the next sweep."""
        try:
            await self._parts.end(self._parts.driver.down, tunnel_name(self.request_id))
        except IPsecError as error:
            self._log.warning("not-removed", reason=error.sentence)
            self.abandon()
            return
        self._give_back_address()

    def abandon(self) -> None:
        """Leave it to the next sweep to take it back; until then its address stays taken."""
        self._parts.pools.strand(tunnel_name(self.request_id), self._address)
        self._address = None
        self.abandoned = True

    def _give_back_address(self) -> None:
        self._parts.pools.give_back(self._address)
        self._address = None

    async def reply(self, action: do.Reply) -> None:
        """Step 6."""
        self.answer = action.answer

    async def ask_again_later(self, action: do.AskAgainLater) -> None:
        """Have Host ask again: nothing was recorded."""
        self._log.warning("deferred", reason=action.reason)
        self.deferred = action.reason

    def _denied(self, code: RefusalCode, reason: str) -> step.NotAuthorized:
        self._log.info("refused", code=str(code), reason=reason)
        return step.NotAuthorized(self.request_id, code, printable(reason))


Performer = Callable[[Answering, Any], Awaitable[Event | None]]

PERFORMERS: dict[type[Action], Performer] = {
    do.LookUp: Answering.look_up,
    do.VerifyEvidence: Answering.verify_evidence,
    do.Authorize: Answering.authorize,
    do.InstallTunnel: Answering.install,
    do.Record: Answering.record,
    do.Withdraw: Answering.withdraw,
    do.Reply: Answering.reply,
    do.AskAgainLater: Answering.ask_again_later,
}

_STEPS: dict[type[Action], str] = {
    do.VerifyEvidence: "step4",
    do.Authorize: "step4",
    do.InstallTunnel: "step5",
}
_OBSERVED: dict[type[Action], str] = {**_STEPS, do.Record: "step6"}
