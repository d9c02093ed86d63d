"""The Host in memory: the Key Database and the HSM are durable, its two processes are not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from carnet.exchange import host as step
from carnet.exchange.machine import Action, Event, run_async
from carnet.wire.control import CONTROL_VERSION, TunnelGrant, TunnelRefusal, TunnelRequest
from carnet.wire.envelope import Envelope, SignedRequest
from carnet.wire.messages import RefusalCode
from host_agent.response import response_to
from tests.exchange.network import Call, Later, Rejection, Silence
from tests.exchange.processes import Lock, pause
from tests.exchange.seals import envelope_of

if TYPE_CHECKING:
    from tests.exchange.world import World

ANSWER_KEPT = 600
"""Seconds, as in the Key Database."""
LEASE = 6
PROCESSES = 2


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
    holder: str | None = None
    lease_until: int = 0


class Host:
    """The Key Database and the HSM, and the processes that share them."""

    def __init__(self, world: "World", key_ids: list[bytes]) -> None:
        self.world = world
        self.valid = set(key_ids)
        self.spent: dict[bytes, Spent] = {}
        self.keys = set(key_ids)
        self.processes = [HostProcess(self, number) for number in range(PROCESSES)]
        self.front = self.processes[0]
        """The process that the next request comes to."""
        self.over_limit = 0
        """How many of the next requests are put off."""

    def receive(self, envelope: Envelope, call: Call | None) -> None:
        """Begin with a request that arrived."""
        self.front.begin(envelope, call)

    def take_up_unanswered(self) -> None:
        """Go on with requests that have no answer, as in every sweep."""
        for process in self.processes:
            process.take_up(self.unanswered())

    def unanswered(self) -> list[bytes]:
        """Return the pairs whose request has no answer, and nobody has the lease of."""
        return [
            key_id
            for key_id, spent in self.spent.items()
            if spent.answered_at is None and not self.is_held(spent)
        ]

    def is_held(self, spent: Spent) -> bool:
        """Tell whether some process has the lease of a request."""
        return spent.holder is not None and spent.lease_until > self.world.now

    def become_quick(self) -> None:
        """Have every process come to renew its leases again."""
        for process in self.processes:
            process.become(slow=False)

    def pass_time(self) -> None:
        """Let every process that is not slow say what it still works on."""
        for process in self.processes:
            process.renew()

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


class HostProcess:
    """One process of the Host; the database knows it by a name that no other ever has."""

    def __init__(self, host: Host, number: int) -> None:
        self.host = host
        self.party = f"host {number}"
        self.slow = False
        """It does not come to renew its leases."""
        self._born = 0
        self._be_born()

    def _be_born(self) -> None:
        self._born += 1
        self.name = f"{self.party}, run {self._born}"
        self.held: set[bytes] = set()
        self.locks: set[bytes] = set()

    def begin(self, envelope: Envelope, call: Call | None) -> None:
        """Begin with a request."""
        exchange = HostExchange(self, envelope, call)
        self.host.world.processes.start(self.party, exchange.run())

    def take_up(self, key_ids: list[bytes]) -> None:
        """Go on with requests as if their bytes had come again."""
        for key_id in key_ids:
            if key_id not in self.held:
                self.begin(envelope_of(key_id, self.host.spent[key_id].digest), None)

    def restart(self) -> None:
        """Crash, and go on with what is durable."""
        self.host.world.processes.kill(self.party)
        self.host.world.network.hang_up(self.party)
        self._be_born()
        self.take_up(self.host.unanswered())

    def become(self, *, slow: bool) -> None:
        """Become slow, or quick again."""
        self.slow = slow
        self.renew()

    def renew(self) -> None:
        """Renew the leases that are still this process's, unless it is slow."""
        for key_id in () if self.slow else self.held:
            if self.host.spent[key_id].holder == self.name:
                self.lease(key_id)

    def lease(self, key_id: bytes) -> None:
        """Have the lease of a request from now on."""
        spent = self.host.spent[key_id]
        spent.holder, spent.lease_until = self.name, self.host.world.now + LEASE
        self.held.add(key_id)

    def let_go(self, key_id: bytes) -> None:
        """Give a lease back, if it still is this process's."""
        spent = self.host.spent.get(key_id)
        if key_id in self.held and spent is not None and spent.holder == self.name:
            spent.holder = None
        self.held.discard(key_id)


class HostExchange:
    """One request on its way."""

    def __init__(self, process: HostProcess, envelope: Envelope, call: Call | None) -> None:
        self._process = process
        self._host = process.host
        self._world = process.host.world
        self._envelope = envelope
        self._key_id = envelope.key_id
        self._call = call
        self._said: bytes | Rejection | Later | None = None

    async def run(self) -> None:
        """Run the table to its end, or until the HSM fails; one at a time for each pair."""
        async with Lock(self._process.locks, self._key_id):
            try:
                state = await run_async(step.machine(), step.Arrived(self._envelope), self._perform)
            except KeyGoneError:
                self._settle(Later())
            else:
                self._testify(state)
            self._process.let_go(self._key_id)

    def _testify(self, state: step.State) -> None:
        """Have the witness see a state that says something else than is so."""
        spent = self._host.spent.get(self._key_id)
        leased = spent is not None and spent.holder == self._process.name
        if leased or not isinstance(self._said, _SAID_IN.get(state, ())):
            self._world.witness.misplaced.add(("host", state))

    async def _perform(self, action: Action) -> Event | None:
        await pause()
        if isinstance(action, step.PassOn):
            return await self.pass_on(action)
        return _PERFORMERS[type(action)](self, action)

    def admit(self, action: step.Admit) -> Event:
        if self._call is not None and self._host.over_limit:
            self._host.over_limit -= 1
            return step.OverLimit(1)
        return step.Admitted(action.envelope)

    def put_off(self, _: step.PutOff) -> None:
        self._settle(Later())

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
        if self._host.is_held(spent) and spent.holder != self._process.name:
            return step.InProgress()
        for other in self._host.processes:
            if spent.holder == other.name != self._process.name and not other.slow:
                self._world.witness.taken_from_the_quick.add(self._key_id)
        self._process.lease(self._key_id)
        return step.RequestUnanswered(spent.signed)

    def open_request(self, action: step.OpenRequest) -> Event:
        if self._key_id not in self._host.keys and self._key_id not in self._host.valid:
            return step.PairTaken(self._envelope)
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
        self._process.lease(self._key_id)
        return step.PairSpent(action.signed)

    async def pass_on(self, action: step.PassOn) -> Event:
        request_id = action.signed.request.request_id
        spent = self._host.spent.get(self._key_id)
        if spent is None or self._key_id in self._host.valid:
            self._world.witness.forwarded_valid.add(self._key_id)
        elif spent.spent_at <= self._world.now - ANSWER_KEPT:
            reason = "The request is too old to be taken up again."
            refusal = TunnelRefusal(request_id=request_id, code=RefusalCode.TOO_LATE, reason=reason)
            return step.TargetAnswered(refusal)
        statement = _statement(self._key_id, action.signed)
        target = self._world.target
        answer = await self._world.network.call(
            self._process.party, lambda c: target.receive(statement, c)
        )
        if isinstance(answer, Silence | Later):
            return step.TargetSilent("target-unreachable")
        return step.TargetAnswered(answer)

    def seal_response(self, action: step.SealResponse) -> Event:
        spent = self._host.spent[self._key_id]
        if self._key_id not in self._host.keys and spent.response is not None:
            return step.AnswerKept(spent.response)
        self._need_key()
        others = tuple(self._world.key_ids - self._host.valid - {self._key_id})
        sealed = self._world.seals.seal_response(self._envelope, response_to(action.answer, others))
        granted = isinstance(action.answer, TunnelGrant)
        return step.ResponseSealed(sealed, "granted" if granted else "refused")

    def store_response(self, action: step.StoreResponse) -> Event:
        spent = self._host.spent.get(self._key_id)
        if spent is None:
            # Passed on while it was valid: the witness has seen it.
            return step.ResponseStored(action.response)
        if spent.answered_at is None:
            spent.response, spent.answered_at = action.response, self._world.now
            spent.holder = None
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

    def let_go(self, _: step.LetGo) -> None:
        self._process.let_go(self._key_id)

    def ask_again_later(self, _: step.AskAgainLater) -> None:
        self._settle(Later())

    def _settle(self, outcome: bytes | Rejection | Later) -> None:
        self._said = outcome
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


_SAID_IN: dict[step.State, type[Any]] = {
    step.State.DONE: bytes,
    step.State.REJECTED: Rejection,
    step.State.SUSPENDED: Later,
    step.State.PUT_OFF: Later,
}
"""What the Client was told where a request came to rest."""

_PERFORMERS: dict[type[Action], Callable[[HostExchange, Any], Event | None]] = {
    step.Admit: HostExchange.admit,
    step.PutOff: HostExchange.put_off,
    step.LookUp: HostExchange.look_up,
    step.OpenRequest: HostExchange.open_request,
    step.SpendPair: HostExchange.spend_pair,
    step.SealResponse: HostExchange.seal_response,
    step.StoreResponse: HostExchange.store_response,
    step.Reply: HostExchange.reply,
    step.DestroyKey: HostExchange.destroy_key,
    step.Reject: HostExchange.reject,
    step.LetGo: HostExchange.let_go,
    step.AskAgainLater: HostExchange.ask_again_later,
}
