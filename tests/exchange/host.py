"""The Host's agent in memory: the Key Database and the HSM are durable, the rest is not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carnet.exchange import host as step
from carnet.exchange.machine import Action, Event, Machine, run_async
from carnet.wire.control import CONTROL_VERSION, TunnelGrant, TunnelRefusal, TunnelRequest
from carnet.wire.envelope import Envelope, SignedRequest
from carnet.wire.messages import RefusalCode
from tests.exchange.network import Call, Later, Rejection, Silence
from tests.exchange.processes import pause
from tests.exchange.seals import envelope_of, response_to

if TYPE_CHECKING:
    from tests.exchange.world import World

ANSWER_KEPT = 600
"""Seconds, as in the Key Database."""


class KeyGoneError(Exception):
    """The HSM has no such private key any more."""


@dataclass
class Spent:
    """The request that spent a pair, as the Key Database has it."""

    digest: bytes
    signed: SignedRequest
    spent_at: int
    answered_at: int | None = None
    response: bytes | None = None


class Host:
    """All requests of one Host.

    Requests of one pair may overtake one another here, as with several Hosts on one
    Key Database.
    """

    def __init__(self, world: "World", key_ids: list[bytes]) -> None:
        self.world = world
        self.valid = set(key_ids)
        self.spent: dict[bytes, Spent] = {}
        self.keys = set(key_ids)

    def receive(self, envelope: Envelope, call: Call | None) -> None:
        """Begin with a request that arrived."""
        exchange = HostExchange(self, envelope, call)
        self._start(exchange, step.machine(), step.Arrived(envelope))

    def restart(self) -> None:
        """Go on with what is durable."""
        self.world.processes.kill("host")
        self.world.network.hang_up("host")
        self.take_up_unanswered()

    def take_up_unanswered(self) -> None:
        """Go on with requests that have no answer, as at a start and in every sweep."""
        for key_id, spent in self.spent.items():
            if spent.answered_at is None:
                exchange = HostExchange(self, envelope_of(key_id, spent.digest), None)
                machine = Machine(step.TABLE, step.State.LOOKING)
                self._start(exchange, machine, step.RequestUnanswered(spent.signed))

    def sweep(self) -> None:
        """Forget old responses, and destroy the keys of invalid pairs that need none."""
        for spent in self.spent.values():
            if not self.is_kept(spent):
                spent.response = None
        unanswered = {each for each, spent in self.spent.items() if spent.answered_at is None}
        self.keys &= self.valid | unanswered

    def is_kept(self, spent: Spent) -> bool:
        """Tell whether an answer is not too old."""
        return spent.answered_at is None or spent.answered_at > self.world.now - ANSWER_KEPT

    def _start(self, exchange: "HostExchange", machine: Machine[step.State], event: Event) -> None:
        self.world.processes.start("host", exchange.run(machine, event))


class HostExchange:
    """One request on its way."""

    def __init__(self, host: Host, envelope: Envelope, call: Call | None) -> None:
        self._host = host
        self._world = host.world
        self._envelope = envelope
        self._key_id = envelope.key_id
        self._call = call

    async def run(self, machine: Machine[step.State], event: Event) -> None:
        """Run the table to its end, or until the HSM fails."""
        try:
            await run_async(machine, event, self._perform)
        except KeyGoneError:
            self._settle(Later())

    async def _perform(self, action: Action) -> Event | None:
        await pause()
        if isinstance(action, step.PassOn):
            return await self.pass_on(action)
        return _PERFORMERS[type(action)](self, action)

    def look_up(self, action: step.LookUp) -> Event:
        spent = self._host.spent.get(self._key_id)
        if spent is not None:
            return self._seen_before(spent)
        if self._key_id not in self._host.valid:
            return step.PairUnusable("the pair is not valid")
        return step.PairValid(action.envelope)

    def _seen_before(self, spent: Spent) -> Event:
        if spent.digest != self._envelope.digest:
            return step.PairUnusable("the pair is spent by other bytes")
        if spent.response is not None and self._host.is_kept(spent):
            return step.AnswerKept(spent.response)
        if spent.answered_at is not None:
            return step.PairUnusable("the answer is no longer kept")
        return step.RequestUnanswered(spent.signed)

    def open_request(self, action: step.OpenRequest) -> Event:
        self._need_key()
        signed = self._world.seals.open_request(action.envelope)
        if signed is None:
            return step.OpeningFailed("the seal does not open")
        return step.RequestOpened(signed)

    def spend_pair(self, action: step.SpendPair) -> Event:
        if self._key_id not in self._host.valid:
            return step.PairTaken(self._envelope)
        self._host.valid.remove(self._key_id)
        spent = Spent(self._envelope.digest, action.signed, self._world.now)
        self._host.spent[self._key_id] = spent
        return step.PairSpent(action.signed)

    async def pass_on(self, action: step.PassOn) -> Event:
        request_id = action.signed.request.request_id
        spent = self._host.spent.get(self._key_id)
        if spent is None:
            self._world.witness.forwarded_valid.add(self._key_id)
        elif spent.spent_at <= self._world.now - ANSWER_KEPT:
            reason = "The request is too old to be taken up again."
            refusal = TunnelRefusal(request_id=request_id, code=RefusalCode.TOO_LATE, reason=reason)
            return step.TargetAnswered(refusal)
        statement = _statement(self._key_id, action.signed)
        target = self._world.target
        answer = await self._world.network.call("host", lambda c: target.receive(statement, c))
        if isinstance(answer, Silence | Later):
            return step.TargetSilent("target-unreachable")
        return step.TargetAnswered(answer)

    def seal_response(self, action: step.SealResponse) -> Event:
        self._need_key()
        others = tuple(self._world.key_ids - self._host.valid - {self._key_id})
        sealed = self._world.seals.seal_response(self._envelope, response_to(action.answer, others))
        granted = isinstance(action.answer, TunnelGrant)
        return step.ResponseSealed(sealed, "granted" if granted else "refused")

    def store_response(self, action: step.StoreResponse) -> Event:
        spent = self._host.spent[self._key_id]
        if spent.answered_at is None:
            spent.response, spent.answered_at = action.response, self._world.now
            return step.ResponseStored(action.response)
        if spent.response is None:
            raise KeyGoneError
        return step.AnswerKept(spent.response)

    def reply(self, action: step.Reply) -> None:
        witness = self._world.witness
        witness.responses[self._key_id].add(action.response)
        spent = self._host.spent.get(self._key_id)
        if spent is None or spent.answered_at is None:
            witness.replied_unstored.add(self._key_id)
        self._settle(action.response)

    def destroy_key(self, _: step.DestroyKey) -> Event:
        self._host.keys.discard(self._key_id)
        return step.KeyDestroyed()

    def reject(self, _: step.Reject) -> None:
        spent = self._host.spent.get(self._key_id)
        if spent and spent.digest == self._envelope.digest and self._host.is_kept(spent):
            self._world.witness.rejected_its_own.add(self._key_id)
        self._settle(Rejection())

    def ask_again_later(self, _: step.AskAgainLater) -> None:
        self._settle(Later())

    def _settle(self, outcome: bytes | Rejection | Later) -> None:
        if self._call is not None:
            self._world.network.reply(self._call, outcome)
            self._call = None

    def _need_key(self) -> None:
        if self._key_id not in self._host.keys:
            raise KeyGoneError


def _statement(key_id: bytes, signed: SignedRequest) -> TunnelRequest:
    return TunnelRequest(
        version=CONTROL_VERSION,
        user_id=signed.request.user_id,
        custody="paired",
        suite=1,
        public_key=key_id,
        evidence=signed.evidence,
    )


_PERFORMERS: dict[type[Action], Callable[[HostExchange, Any], Event | None]] = {
    step.LookUp: HostExchange.look_up,
    step.OpenRequest: HostExchange.open_request,
    step.SpendPair: HostExchange.spend_pair,
    step.SealResponse: HostExchange.seal_response,
    step.StoreResponse: HostExchange.store_response,
    step.Reply: HostExchange.reply,
    step.DestroyKey: HostExchange.destroy_key,
    step.Reject: HostExchange.reject,
    step.AskAgainLater: HostExchange.ask_again_later,
}
