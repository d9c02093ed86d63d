"""Carries out what the Host's table asks for, for one request."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars

from carnet import crash
from carnet.database.readers import ask
from carnet.errors import TokenError
from carnet.exchange import host as step
from carnet.exchange.machine import Action, Event
from carnet.wire.control import CONTROL_VERSION, TunnelRequest
from carnet.wire.envelope import Envelope, SignedRequest
from carnet.wire.fault import WireError
from carnet.wire.messages import Refusal
from carnet.wire.suites import ALL_SUITES, find_suite, numbers_of
from host_agent import custody
from host_agent.admission import Admission, Place
from host_agent.clock_watch import ClockWatch
from host_agent.hsm import Hsm
from host_agent.keydb import KeyDatabase, PairRecord, PairState, RequestRecord
from host_agent.keystore.stores import store_of
from host_agent.leases import Leases
from host_agent.metrics import HostMetrics
from host_agent.outcome import Answered, Busy, Later, Outcome, Rejected
from host_agent.response import outcome_of, own_refusal, response_to
from host_agent.seen_before import is_too_late, read_again, settled
from host_agent.target_link import TargetLink, TargetSilentError

log = structlog.get_logger()


@dataclass(frozen=True)
class Parts:
    """What every request needs of the Host."""

    database: KeyDatabase
    hsm: Hsm
    link: TargetLink
    leases: Leases
    admission: Admission
    suites: frozenset[int] = numbers_of(ALL_SUITES)
    """Numbers of those that the operator allows."""
    metrics: HostMetrics = field(default_factory=HostMetrics)
    clock: ClockWatch = field(default_factory=ClockWatch)


@dataclass
class Exchange:
    """One request on its way; `outcome` is set as soon as the Client can be answered."""

    parts: Parts
    envelope: Envelope
    address: str = ""
    """Of the sender; what is taken up again has none, and is not limited."""
    outcome: "asyncio.Future[Outcome]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    pair: PairRecord | None = None
    too_late: bool = False
    """Whether its request was too old to be taken up, when it was looked up."""
    timings: list[str] = field(default_factory=list)
    refusal: str | None = None
    """What a refusal says, for the accounts."""
    place: Place | None = None
    asked: SignedRequest | None = None
    """What the Client signed, as soon as it is passed on."""
    names: dict[str, str] = field(default_factory=dict)
    """What names the request in a line of the log that is another task's."""
    _began: float = field(default_factory=time.perf_counter)
    _answered: str = "repeated"
    """The answer's outcome, where it is this exchange's own."""
    _works: bool = False
    """Whether the lease of the request is this exchange's."""

    async def perform(self, action: Action) -> Event | None:
        """Carry out one action; return the event that follows from it."""
        started = time.perf_counter()
        event = await _PERFORMERS[type(action)](self, action)
        if type(action) in _STEPS:
            elapsed = time.perf_counter() - started
            self.parts.metrics.step_seconds[_STEPS[type(action)]](elapsed)
            self.timings.append(f"{_STEPS[type(action)]};dur={elapsed * 1000:.1f}")
        return event

    async def admit(self, action: step.Admit) -> Event:
        """Ask the limits; who is admitted holds a place near the token for a moment."""
        if not self.address:
            # It was admitted when it came.
            return step.Admitted(action.envelope)
        answer = self.parts.admission.ask(self.address)
        if isinstance(answer, Place):
            self.place = answer
            return step.Admitted(action.envelope)
        return step.OverLimit(answer)

    async def put_off(self, action: step.PutOff) -> None:
        """Say when to come again."""
        log.info("over-limit", address=self.address, seconds=action.seconds)
        self._settle(Busy(action.seconds))

    async def look_up(self, action: step.LookUp) -> Event:
        """Find the pair, and what these bytes may have led to before."""
        event = await self._find(action.envelope)
        if not isinstance(event, step.PairValid):
            self.give_up_place()
        return event

    async def _find(self, envelope: Envelope) -> Event:
        self.pair, request = await ask(self.parts.database.look_up, envelope.key_id)
        if self.pair is None:
            return step.PairUnusable("unknown key pair")
        # So that none is spent in a leap that nobody saw.
        self.parts.clock.leap(self.pair.looked_up_at)
        if self.pair.suite != envelope.suite.number:
            return step.PairUnusable("the pair is of another suite")
        if request is not None:
            return await self._seen_before(request)
        # Of what is spent that is not asked: it is to be settled, and its key burned.
        if envelope.suite.number not in self.parts.suites:
            return step.PairUnusable("the suite is not allowed")
        if self.pair.state is not PairState.VALID or self.pair.expired:
            return step.PairUnusable("the pair is not valid")
        return step.PairValid(envelope)

    async def _seen_before(self, request: RequestRecord) -> Event:
        event = settled(request, self.envelope, self.parts.clock)
        if event is not None:
            return event
        self.too_late = is_too_late(request, self.parts.clock)
        if not await self._take_lease(request.key_id):
            return step.InProgress()
        signed = read_again(request, self._pair, self.envelope)
        self._name_request(signed)
        return step.RequestUnanswered(signed)

    async def _take_lease(self, key_id: bytes) -> bool:
        """Take the request over; False while another exchange, of any process, works on it."""
        leases = self.parts.leases
        if leases.holds(key_id):
            return False
        leases.hold(key_id)
        self._works = True
        if await asyncio.to_thread(self.parts.database.take_lease, key_id):
            crash.reach("host.lease-taken")
            return True
        leases.forget(key_id)
        self._works = False
        return False

    async def release(self) -> None:
        """Give back what an exchange that failed or was stopped still holds."""
        if self._works and self.parts.leases.holds(self.envelope.key_id):
            await self.parts.leases.let_go(self.envelope.key_id)

    async def open_request(self, action: step.OpenRequest) -> Event:
        """Step 2: decrypt on the HSM, verify the signature."""
        if self.place is not None:
            self.place.use()
        try:
            signed = await custody.open_request(
                self.parts.hsm, self.parts.database, action.envelope, self._pair
            )
        except WireError as error:
            return step.OpeningFailed(str(error))
        except TokenError:
            pair = await ask(self.parts.database.find_pair, self.envelope.key_id)
            if pair is not None and pair.state is PairState.VALID:
                raise
            return step.PairTaken(self.envelope)
        crash.reach("host.opened")
        self._name_request(signed)
        return step.RequestOpened(signed)

    async def spend_pair(self, action: step.SpendPair) -> Event:
        """Step 3: valid to invalid, durably, before a byte leaves for Target."""
        spent = await asyncio.to_thread(self.parts.database.spend, self.envelope, action.signed)
        if not spent:
            return step.PairTaken(self.envelope)
        self.parts.leases.hold(self.envelope.key_id)
        self._works = True
        crash.reach("host.spent")
        return step.PairSpent(action.signed)

    async def pass_on(self, action: step.PassOn) -> Event:
        """Step 3: pass the user information on; step 6: take Target's answer.

        Not without the HSM, which the answer will need: Target would prepare a tunnel
        that nobody hears of.
        """
        self.parts.hsm.require()
        self.asked = action.signed
        request = action.signed.request
        known = self.parts.link.knows(request.request_info.target)
        refusal = own_refusal(request, self._pair, knows_target=known, too_late=self.too_late)
        if refusal is not None:
            return step.TargetAnswered(refusal)
        statement = TunnelRequest(
            version=CONTROL_VERSION,
            user_id=self._pair.user_id,
            custody=self._pair.custody,
            suite=self._pair.suite,
            public_key=self._pair.public_key,
            evidence=action.signed.evidence,
        )
        try:
            timed = await self.parts.link.pass_on(request.request_info.target, statement)
        except TargetSilentError as error:
            log.warning("target-silent", request_id=request.request_id.hex(), reason=str(error))
            return step.TargetSilent(error.code)
        if timed.answer.request_id != request.request_id:
            return step.TargetSilent("target-not-ready")
        crash.reach("host.target-answered")
        if timed.timing:
            self.timings.append(timed.timing)
        return step.TargetAnswered(timed.answer)

    async def seal_response(self, action: step.SealResponse) -> Event:
        """Step 7: sign on the HSM, seal to the pair, or to what custody `split` has for it.

        Where the key is gone another process may have answered, and burned it.
        """
        database = self.parts.database
        response = response_to(action.answer, await ask(database.invalid_pairs, self._pair))
        self.refusal = response.reason if isinstance(response, Refusal) else None
        try:
            sealed = await custody.seal_response(
                self.parts.hsm, database, response, self.envelope, self._pair, self._asked
            )
        except TokenError:
            request = await ask(database.find_request, self.envelope.key_id)
            if request is None or request.response is None:
                raise
            return step.AnswerKept(request.response)
        crash.reach("host.sealed")
        return step.ResponseSealed(sealed, outcome_of(action.answer))

    async def store_response(self, action: step.StoreResponse) -> Event:
        """Step 7: durable before it is visible."""
        stands = await asyncio.to_thread(
            self.parts.database.store_response,
            self.envelope.key_id,
            action.outcome,
            action.response,
            self.refusal,
        )
        self.parts.leases.forget(self.envelope.key_id)
        if stands is None:
            raise RuntimeError("another run answered first, too long ago for its answer to be kept")
        crash.reach("host.answered")
        if stands != action.response:
            return step.AnswerKept(stands)
        self._answered = action.outcome
        return step.ResponseStored(stands)

    async def reply(self, action: step.Reply) -> None:
        """Step 8: the Client gets its answer; what follows is off its path."""
        self._settle(Answered(action.response, ", ".join(self.timings)))

    async def destroy_key(self, _: step.DestroyKey) -> Event | None:
        """Step 10: the burn on the HSM; what fails here is swept later.

        In custody `split` the private key never was here.
        """
        crash.reach("host.replied")
        if not custody.holds_private_key(self._pair):
            return step.KeyDestroyed()
        try:
            await destroy_key(self.parts, self._pair)
        except TokenError as error:
            log.warning("key-not-destroyed", key_id=self.envelope.key_id.hex(), reason=str(error))
            return None
        return step.KeyDestroyed()

    async def reject(self, action: step.Reject) -> None:
        """Give the one answer that strangers get; the reason goes to the log.

        Not to the accounts: whoever is not authenticated could fill the disk with them.
        """
        log.info("rejected", key_id=self.envelope.key_id.hex(), reason=action.reason)
        self._settle(Rejected())

    async def let_go(self, _: step.LetGo) -> None:
        """Let whoever gets these bytes next take them up at once."""
        await self.parts.leases.let_go(self.envelope.key_id)

    async def ask_again_later(self, action: step.AskAgainLater) -> None:
        """Tell the Client, who is authenticated by now, to send the same bytes again."""
        self._settle(Later(action.reason))

    def fail(self, reason: str) -> None:
        """Answer the Client, if it was not yet: the Host itself is in trouble."""
        self._settle(Later(reason))

    def give_up_place(self) -> None:
        """Let another come near the token; no effect after the token was reached."""
        if self.place is not None:
            self.place.give_back()

    def _settle(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)
            self._count(outcome)

    def _count(self, outcome: Outcome) -> None:
        metrics = self.parts.metrics
        match outcome:
            case Answered():
                metrics.count_request(self._answered)
                metrics.request_seconds(time.perf_counter() - self._began)
            case Later(reason):
                metrics.count_request(reason)
            case Busy():
                metrics.count_request("over-limit")
            case Rejected():
                metrics.count_request("rejected")

    def _name_request(self, signed: SignedRequest) -> None:
        """Have every line of the log that follows name the request; nobody could before."""
        self.names["request_id"] = signed.request.request_id.hex()
        bind_contextvars(**self.names)

    @property
    def _asked(self) -> SignedRequest:
        if self.asked is None:
            raise RuntimeError("the table passes a request on before it is answered")
        return self.asked

    @property
    def _pair(self) -> PairRecord:
        if self.pair is None:
            raise RuntimeError("the table looks a pair up before it uses it")
        return self.pair


async def destroy_key(parts: Parts, pair: PairRecord) -> None:
    """Destroy a pair's private key where it is kept, and write down that it is gone."""
    await store_of(pair.key_store).burn(parts.database, parts.hsm, pair.key_id)
    crash.reach("host.burned")
    log.info("key-destroyed", key_id=pair.key_id.hex())


def take_up(parts: Parts, suite: int, request: RequestRecord) -> Exchange:
    """Return a request that was left unanswered, as if the same bytes had come again."""
    return Exchange(parts, Envelope(find_suite(suite), request.key_id, b"", request.digest))


_STEPS: dict[type[Action], str] = {
    step.OpenRequest: "step2",
    step.SpendPair: "step3",
    step.PassOn: "target",
    step.SealResponse: "step7",
}

_PERFORMERS: dict[type[Action], Callable[[Exchange, Any], Awaitable[Event | None]]] = {
    step.Admit: Exchange.admit,
    step.PutOff: Exchange.put_off,
    step.LookUp: Exchange.look_up,
    step.OpenRequest: Exchange.open_request,
    step.SpendPair: Exchange.spend_pair,
    step.PassOn: Exchange.pass_on,
    step.SealResponse: Exchange.seal_response,
    step.StoreResponse: Exchange.store_response,
    step.Reply: Exchange.reply,
    step.DestroyKey: Exchange.destroy_key,
    step.Reject: Exchange.reject,
    step.LetGo: Exchange.let_go,
    step.AskAgainLater: Exchange.ask_again_later,
}
