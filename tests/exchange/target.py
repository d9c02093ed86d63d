"""The Target's agent in memory: its records are durable; its IKE daemon lives beside it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from carnet.exchange import target as step
from carnet.exchange import target_actions as do
from carnet.exchange.machine import Action, Event, run_async
from carnet.wire.control import TunnelAnswer, TunnelGrant, TunnelRequest
from carnet.wire.messages import RefusalCode, Request
from tests.exchange.network import Call, Later
from tests.exchange.processes import Lock, pause
from tests.unit.examples import make_tunneling_info

if TYPE_CHECKING:
    from tests.exchange.world import World

INITIATE_WITHIN = 120
AWAY = 50
SESSION = 3600
_INFO = make_tunneling_info(initiate_within=INITIATE_WITHIN)
_UNLIVE = frozenset({step.State.REFUSED, step.State.REPLIED, step.State.SUSPENDED})
_LIVE_RECORDS = ("prepared", "established")


@dataclass
class Daemon:
    """The IKE daemon: it outlives the agent, and forgets all when it is restarted itself."""

    secrets: dict[bytes, bytes] = field(default_factory=dict)
    """Session keys by Request ID."""
    up: set[bytes] = field(default_factory=set)

    def known(self) -> set[bytes]:
        return {*self.secrets, *self.up}

    def down(self, request_id: bytes) -> None:
        self.secrets.pop(request_id, None)
        self.up.discard(request_id)


@dataclass
class Record:
    """A row of the Target's database."""

    answer: TunnelAnswer
    state: str
    answered_at: int
    end_reason: str | None = None
    """Set in a live record: it is to end, and the IKE daemon has not let it go yet."""


class Target:
    """All requests and tunnels of one Target."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.records: dict[bytes, Record] = {}
        self.daemon = Daemon()
        self.member = True
        self.troubles: set[str] = set()
        """What fails the next time that it is tried."""
        self._forget()

    def _forget(self) -> None:
        self.live: dict[bytes, TargetExchange] = {}
        self.timers: dict[bytes, tuple[int, Event]] = {}
        self._held: set[bytes] = set()

    def lock(self, request_id: bytes) -> Lock:
        """Return the lock of a Request ID: its events are fed one after another."""
        return Lock(self._held, request_id)

    def receive(self, statement: TunnelRequest, call: Call) -> None:
        """Begin with what Host passed on."""
        self.world.processes.start("target", self._answer(statement, call))

    def feed_later(self, request_id: bytes, event: Event) -> None:
        """Have a live tunnel hear of something."""
        self.world.processes.start("target", self._feed(request_id, event))

    def ring(self) -> None:
        """Have every timer go off whose time has come."""
        for request_id, (due, event) in list(self.timers.items()):
            if due <= self.world.now:
                del self.timers[request_id]
                self.feed_later(request_id, event)

    def restart(self) -> None:
        """Go on with what is durable, and compare it with what the daemon has."""
        self.world.processes.kill("target")
        self._forget()
        for request_id, record in self.records.items():
            if record.state in _LIVE_RECORDS:
                self.live[request_id] = TargetExchange(self, request_id, None)
                self.live[request_id].take_up(record)
        self.ring()
        self.compare()

    def restart_daemon(self) -> None:
        """Have the IKE daemon forget its tunnels, and compare."""
        self.daemon = Daemon()
        self.compare()

    def compare(self) -> None:
        """End what the daemon no longer has; take out of it what nobody knows."""
        for request_id, exchange in self.live.items():
            up = request_id in self.daemon.up
            if exchange.is_lost(up=up):
                self.feed_later(request_id, step.Over("restart"))
            if up:
                self.feed_later(request_id, step.CameUp())
        for request_id in self.daemon.known() - self.live.keys():
            self.daemon.down(request_id)

    def end(self, request_id: bytes) -> None:
        """Have an operator end a tunnel, and be told that it ends."""
        self.world.processes.start("target", self._end(request_id))

    def fails(self, what: str) -> bool:
        """Tell whether this fails now; it will not the next time."""
        found = what in self.troubles
        self.troubles.discard(what)
        return found

    async def _answer(self, statement: TunnelRequest, call: Call) -> None:
        _, signed = self.world.seals.signer(statement.evidence)
        request_id = signed.request.request_id
        exchange = TargetExchange(self, request_id, call)
        async with self.lock(request_id):
            kept = self.live.setdefault(request_id, exchange)
            await run_async(exchange.machine, step.Arrived(statement, "office"), exchange.perform)
            exchange.testify()
            if kept.machine.state in _UNLIVE:
                del self.live[request_id]

    async def _feed(self, request_id: bytes, event: Event) -> step.State | None:
        async with self.lock(request_id):
            exchange = self.live.get(request_id)
            if exchange is None:
                return None
            state = await run_async(exchange.machine, event, exchange.perform)
            exchange.testify()
            if state is step.State.ENDED:
                del self.live[request_id]
            return state

    async def _end(self, request_id: bytes) -> None:
        # What stands in CLOSING is gone from the daemon: no restart brings it back.
        if await self._feed(request_id, step.Over("revoked")) is step.State.ENDING:
            self.world.witness.promised_ends.add(request_id)


class TargetExchange:
    """One request and then its tunnel."""

    def __init__(self, target: Target, request_id: bytes, call: Call | None) -> None:
        self.machine = step.machine()
        self._target = target
        self._world = target.world
        self._request_id = request_id
        self._call = call
        self._proved: Request | None = None
        self._prepared_at = self._world.now
        self._end_reason: str | None = None

    def take_up(self, record: Record) -> None:
        """Go on from a record."""
        self.machine = step.machine(step.State(record.state))
        self._prepared_at = record.answered_at
        self._end_reason = record.end_reason
        if record.end_reason is not None:
            self.machine = step.machine(step.State.ENDING)
        waits = self.machine.state is step.State.PREPARED
        _PERFORMERS[do.AwaitIKE if waits else do.AwaitExpiry](self, None)

    def is_lost(self, *, up: bool) -> bool:
        """Tell whether this should be in the daemon and is not, or should not and may be."""
        state = self.machine.state
        if state is step.State.PREPARED:
            return self._request_id not in self._target.daemon.known()
        unfinished = state in {step.State.ENDING, step.State.CLOSING}
        return unfinished or (state is step.State.ESTABLISHED and not up)

    def testify(self) -> None:
        """Have the witness see a state that says something else than is so."""
        if not self._is_as_it_says(self.machine.state):
            self._world.witness.misplaced.add(("target", self.machine.state))

    def _is_as_it_says(self, state: step.State) -> bool:
        record = self._target.records.get(self._request_id)
        written = record.state if record else None
        daemon = self._target.daemon
        in_daemon = self._request_id in daemon.known()
        secrets = self._request_id in daemon.secrets
        return {
            step.State.REPLIED: written in {"refused", *_LIVE_RECORDS},
            step.State.REFUSED: written in {"refused", "ended", *_LIVE_RECORDS},
            step.State.SUSPENDED: record is not None or not in_daemon,
            step.State.PREPARED: written == "prepared",
            step.State.ESTABLISHED: written == "established" and not secrets,
            step.State.ENDING: written in _LIVE_RECORDS,
            step.State.CLOSING: written in _LIVE_RECORDS and not in_daemon,
            step.State.ENDED: written == "ended" and not in_daemon,
        }.get(state, False)

    async def perform(self, action: Action) -> Event | None:
        """Carry out one action when it is let."""
        await pause()
        return _PERFORMERS[type(action)](self, action)

    def look_up(self, action: do.LookUp) -> Event:
        record = self._target.records.get(self._request_id)
        if record is None:
            return step.RequestNew(action.request, action.host)
        if record.state == "ended" or record.end_reason is not None:
            return self._denied(RefusalCode.TOO_LATE)
        return step.AnswerKnown(record.answer)

    def verify_evidence(self, action: do.VerifyEvidence) -> Event:
        _, signed = self._world.seals.signer(action.request.evidence)
        self._proved = signed.request
        return step.EvidenceTrue(signed.request)

    def authorize(self, action: do.Authorize) -> Event:
        if self._target.fails("authorize"):
            return step.NotInstalled("the daemon does not answer")
        if not self._target.member:
            return self._denied(RefusalCode.OBJECTIVE)
        return step.Authorized(action.request, None)

    def install(self, _: do.InstallTunnel[None]) -> Event:
        if self._target.fails("install"):
            return step.NotInstalled("the daemon does not answer")
        key = self._world.seals.fresh("session key")
        self._target.daemon.secrets[self._request_id] = key
        info = msgspec.structs.replace(_INFO, expires=self._world.now + SESSION)
        return step.TunnelInstalled(
            TunnelGrant(request_id=self._request_id, session_key=key, tunneling_info=info)
        )

    def record(self, action: do.Record) -> Event:
        granted = isinstance(action.answer, TunnelGrant)
        if self._target.fails("record"):
            return step.NotRecorded("the disk is full")
        if self._proved is not None:
            state = "prepared" if granted else "refused"
            record = Record(action.answer, state, self._world.now)
            assert self._request_id not in self._target.records
            self._target.records[self._request_id] = record
        return step.Recorded(action.answer)

    def withdraw(self, _: do.Withdraw) -> None:
        self._target.daemon.down(self._request_id)

    def reply(self, action: do.Reply) -> None:
        witness = self._world.witness
        if isinstance(action.answer, TunnelGrant):
            key_id = self._world.pair_of(self._request_id)
            witness.session_keys[key_id].add(action.answer.session_key)
            if self._request_id not in self._target.records:
                witness.replied_unrecorded.add(self._request_id)
        self._reply(action.answer)

    def ask_again_later(self, _: do.AskAgainLater) -> None:
        self._reply(Later())

    def await_ike(self, _: do.AwaitIKE) -> None:
        self._over_at(self._prepared_at + INITIATE_WITHIN, "unused")

    def confirm(self, _: do.ConfirmTunnel) -> Event:
        if self._target.fails("confirm"):
            return step.Over("not-confirmed")
        return step.TunnelConfirmed()

    def check(self, action: do.CheckTunnel) -> Event | None:
        found = self.confirm(do.ConfirmTunnel())
        return found if action.whole or isinstance(found, step.Over) else None

    def forget_secrets(self, _: do.ForgetSecrets) -> Event:
        if self._target.fails("forget"):
            return step.Over("secrets-not-forgotten")
        self._target.daemon.secrets.pop(self._request_id, None)
        return step.SecretsForgotten()

    def record_established(self, _: do.RecordEstablished) -> Event:
        if self._target.fails("record"):
            return step.NotRecorded("the disk is full")
        self._target.records[self._request_id].state = "established"
        return step.EstablishedRecorded()

    def await_expiry(self, _: do.AwaitExpiry) -> None:
        self._over_at(self._prepared_at + SESSION, "expired")

    def await_return(self, _: do.AwaitReturn) -> None:
        self._over_at(min(self._world.now + AWAY, self._prepared_at + SESSION), "peer-lost")

    def remove(self, action: do.RemoveTunnel) -> Event:
        self._end_reason = self._end_reason or action.reason
        self._target.timers.pop(self._request_id, None)
        if self._target.fails("remove"):
            self._over_at(self._world.now + 1, self._end_reason)
            return step.NotRemoved(self._end_reason)
        self._target.daemon.down(self._request_id)
        return step.TunnelRemoved(self._end_reason)

    def record_ending(self, action: do.RecordEnding) -> None:
        record = self._target.records[self._request_id]
        record.end_reason = record.end_reason or action.reason

    def record_ended(self, action: do.RecordEnded) -> Event:
        if self._target.fails("record"):
            self._over_at(self._world.now + 1, action.reason)
            return step.NotRecorded("the disk is full")
        self._target.records[self._request_id].state = "ended"
        return step.EndRecorded()

    def _over_at(self, due: int, reason: str) -> None:
        self._target.timers[self._request_id] = (due, step.Over(reason))

    def _denied(self, code: RefusalCode) -> Event:
        return step.NotAuthorized(self._request_id, code, "No.")

    def _reply(self, answer: TunnelAnswer | Later) -> None:
        if self._call is not None:
            self._world.network.reply(self._call, answer)


_PERFORMERS: dict[type[Action], Callable[[TargetExchange, Any], Event | None]] = {
    do.LookUp: TargetExchange.look_up,
    do.VerifyEvidence: TargetExchange.verify_evidence,
    do.Authorize: TargetExchange.authorize,
    do.InstallTunnel: TargetExchange.install,
    do.Record: TargetExchange.record,
    do.Withdraw: TargetExchange.withdraw,
    do.Reply: TargetExchange.reply,
    do.AskAgainLater: TargetExchange.ask_again_later,
    do.AwaitIKE: TargetExchange.await_ike,
    do.ConfirmTunnel: TargetExchange.confirm,
    do.CheckTunnel: TargetExchange.check,
    do.ForgetSecrets: TargetExchange.forget_secrets,
    do.RecordEstablished: TargetExchange.record_established,
    do.AwaitExpiry: TargetExchange.await_expiry,
    do.AwaitReturn: TargetExchange.await_return,
    do.RemoveTunnel: TargetExchange.remove,
    do.RecordEnding: TargetExchange.record_ending,
    do.RecordEnded: TargetExchange.record_ended,
}
