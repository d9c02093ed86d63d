"""The Client's agent in memory: the token is durable, and the machine's memory until it is left."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from carnet.exchange import client as step
from carnet.exchange.machine import Action, Event, run_async
from carnet.wire.messages import Grant
from tests.exchange.network import Later, Rejection, Silence
from tests.exchange.processes import pause
from tests.exchange.seals import envelope_of

if TYPE_CHECKING:
    from tests.exchange.world import World

KEPT_SECONDS = 600
MAX_SET_ASIDE = 3
ATTEMPTS = 4
"""The Client's patience: how often one run sends."""


class IKE(StrEnum):
    """What becomes of the Client's next IKE negotiation."""

    SUCCEEDS = "succeeds"
    SILENT = "silent"
    REFUSED = "refused"
    HALF = "half"
    """Target's side is up; its last message is lost."""
    UNCONFIGURED = "unconfigured"
    """IPsec on this machine does not take the tunnel."""


@dataclass(frozen=True)
class Pending:
    """A request that was sent and not settled."""

    key_id: bytes
    sealed: bytes
    kept_at: int


class Client:
    """One traveller with one token."""

    def __init__(self, world: "World", key_ids: list[bytes]) -> None:
        self.world = world
        self.keys = list(key_ids)
        """Private keys on the token, in order of use."""
        self.ike = IKE.SUCCEEDS
        self.leave_machine()

    def leave_machine(self) -> None:
        """Go to another machine: what was in memory is no more."""
        self.stop()
        self.pending: Pending | None = None
        self.aside: list[bytes] = []
        """Pairs set aside, the one that was longest ago first."""
        self.up: set[bytes] = set()
        self.secrets: set[bytes] = set()
        """Request IDs of which this machine's IKE daemon has the pre-shared keys."""
        self.world.witness.unsettled = None

    def stop(self) -> None:
        """Die where it stands."""
        self.world.processes.kill("client")
        self.world.network.hang_up("client")
        self.outcome: step.State | None = None
        """Where the last run came to rest, None while it runs."""

    def start(self) -> None:
        """Run `connect`."""
        self.outcome = None
        self.world.processes.start("client", self._connect())

    async def _connect(self) -> None:
        attempts = list(range(ATTEMPTS))
        state = await self._resume(attempts)
        tried: set[bytes] = set()
        while state in (None, step.State.SET_ASIDE, step.State.GIVEN_UP):
            untried = [key_id for key_id in self.keys if key_id not in tried]
            if not untried or len(tried) == MAX_SET_ASIDE:
                break
            key_id = min(untried, key=self._turn)
            tried.add(key_id)
            exchange = ClientExchange(self, key_id, attempts)
            state = await exchange.run(step.PairChosen(key_id))
            if state is step.State.GIVEN_UP:
                break
        self.outcome = state

    def set_aside(self, key_id: bytes) -> None:
        """Take every other pair before this one."""
        self.aside = [each for each in self.aside if each != key_id] + [key_id]

    def _turn(self, key_id: bytes) -> int:
        return self.aside.index(key_id) if key_id in self.aside else -1

    async def _resume(self, attempts: list[int]) -> step.State | None:
        pending = self._find_pending()
        if pending is None:
            return None
        exchange = ClientExchange(self, pending.key_id, attempts, pending)
        return await exchange.run(step.PendingFound(pending.sealed))

    def _find_pending(self) -> Pending | None:
        pending = self.pending
        if pending is None or pending.key_id not in self.keys:
            self.pending = None
        elif self.world.now - pending.kept_at >= KEPT_SECONDS:
            self.set_aside(pending.key_id)
            self.pending = self.world.witness.unsettled = None
        return self.pending


class ClientExchange:
    """One run of the table with one key pair."""

    def __init__(
        self, client: Client, key_id: bytes, attempts: list[int], resumed: Pending | None = None
    ) -> None:
        self._client = client
        self._world = client.world
        self._key_id = key_id
        self._attempts = attempts
        self._resumed = resumed
        self._sealed = resumed.sealed if resumed else b""
        self._good_ends = frozenset(step.State)

    async def run(self, event: Event) -> step.State:
        """Run the table until it rests."""
        if self._world.is_calm():
            self._good_ends = self._ends_if_all_gets_through()
        state = await run_async(step.machine(), event, self._perform)
        witness = self._world.witness
        if state not in self._good_ends:
            witness.stranded.add((self._key_id, state))
        if not self._is_as_it_says(state):
            witness.misplaced.add(("client", state))
        return state

    def _ends_if_all_gets_through(self) -> frozenset[step.State]:
        """Return where this may end if from now on nothing is lost and nothing fails."""
        host, target = self._world.host, self._world.target
        step_10_or_refusal = frozenset({step.State.ESTABLISHED, step.State.REFUSED})
        if self._key_id in host.valid:
            return step_10_or_refusal
        spent = host.spent.get(self._key_id)
        if spent is None or spent.digest != self._sealed or not host.is_kept(spent):
            return frozenset({step.State.SET_ASIDE})
        request_id = self._world.request_id_of(self._sealed)
        if request_id in target.daemon.secrets or request_id in self._client.up:
            return step_10_or_refusal
        return step_10_or_refusal | {step.State.GIVEN_UP}

    def _is_as_it_says(self, state: step.State) -> bool:
        """Tell whether the token and the machine are left as the state says, and no other way."""
        request_id = self._world.request_id_of(self._sealed)
        client = self._client
        kept = self._key_id in client.keys
        pending = client.pending is not None and client.pending.key_id == self._key_id
        configured = request_id in client.secrets | client.up
        stands = request_id in client.up - client.secrets
        settled = not (kept or pending or client.aside)
        settled &= self._world.witness.told_over.isdisjoint(client.keys)
        return {
            step.State.ESTABLISHED: stands and settled,
            step.State.REFUSED: settled and not configured,
            step.State.GIVEN_UP: not (kept or pending or configured),
            step.State.FAILED: kept and pending and not configured,
            step.State.SUSPENDED: kept and pending,
            step.State.SET_ASIDE: kept and not pending and self._key_id in client.aside,
        }.get(state, False)

    async def _perform(self, action: Action) -> Event | None:
        await pause()
        if isinstance(action, step.SendRequest):
            return await self.send_request(action)
        return _PERFORMERS[type(action)](self, action)

    def seal_request(self, action: step.SealRequest) -> Event:
        self._sealed = self._world.seal_request(action.key_id)
        return step.RequestSealed(self._sealed)

    def keep_pending(self, action: step.KeepPending) -> Event:
        self._client.pending = Pending(self._key_id, action.sealed, self._world.now)
        return step.PendingKept(action.sealed)

    async def send_request(self, action: step.SendRequest) -> Event:
        """Send until something comes that could be an answer, or patience is over."""
        self._world.witness.unsettled = self._key_id
        envelope = envelope_of(self._key_id, action.sealed)
        while self._attempts:
            self._attempts.pop()
            self._world.envelopes.append(envelope)
            reply = await self._world.network.call(
                "client", lambda call: self._world.host.receive(envelope, call)
            )
            if isinstance(reply, Rejection):
                return step.UnsealedNo()
            if not isinstance(reply, Silence | Later):
                return step.AnswerArrived(reply)
        return step.NoAnswer("host-unreachable", "")

    def open_answer(self, action: step.OpenAnswer) -> Event:
        envelope = envelope_of(self._key_id, self._sealed)
        response = self._world.seals.open_response(action.answer, envelope)
        if response is None:
            return step.AnswerFalse(self._sealed)
        self._world.witness.told_over.update(response.invalid_pairs)
        if isinstance(response, Grant):
            return step.Granted(response)
        self._world.witness.told_over.add(self._key_id)
        return step.Refused(response)

    def configure_tunnel(self, action: step.ConfigureTunnel) -> Event:
        if self._client.ike is IKE.UNCONFIGURED:
            self._client.ike = IKE.SUCCEEDS
            return self._failed(action.grant, silent=True)
        self._client.secrets.add(action.grant.request_id)
        return step.TunnelConfigured(action.grant)

    def initiate(self, action: step.InitiateIKE) -> Event:
        """Try once; a tunnel that an earlier run brought up is taken over."""
        grant, request_id = action.grant, action.grant.request_id
        ike, self._client.ike = self._client.ike, IKE.SUCCEEDS
        if self._resumed and request_id in self._client.up:
            return step.TunnelUp(grant)
        if ike is IKE.SILENT:
            return self._failed(grant, silent=True)
        if ike is IKE.REFUSED or not self._world.initiate(request_id, grant.session_key):
            return self._failed(grant, silent=False)
        if ike is IKE.HALF:
            return self._failed(grant, silent=True)
        self._client.up.add(request_id)
        return step.TunnelUp(grant)

    def _failed(self, grant: Grant, *, silent: bool) -> Event:
        """Tell whether the same answer, fetched again, could still lead to a tunnel."""
        if self._resumed is None:
            return step.TunnelFailed("no")
        age = self._world.now - self._resumed.kept_at
        if silent and age < grant.tunneling_info.initiate_within:
            return step.TunnelFailed("no")
        self._world.witness.told_over.add(self._key_id)
        return step.TunnelHopeless("no")

    def forget_secrets(self, _: step.ForgetSecrets) -> None:
        """Leave the IKE daemon without secrets."""
        self._client.secrets.discard(self._world.request_id_of(self._sealed))

    def destroy_pair(self, _: step.DestroyPair) -> None:
        request_id = self._world.request_id_of(self._sealed)
        if request_id in self._client.secrets:
            self._world.witness.burned_before_secrets.add(self._key_id)
        self._destroy(self._key_id, stands=request_id in self._client.up)
        self._settled()

    def settle_others(self, action: step.SettleOthers) -> None:
        for key_id in action.invalid_pairs:
            self._destroy(key_id)
        self._client.aside.clear()

    def _destroy(self, key_id: bytes, *, stands: bool = False) -> None:
        """Destroy a pair: its tunnel stands, or the Host said that it is over."""
        if key_id in self._client.keys:
            self._client.keys.remove(key_id)
            if not (stands or key_id in self._world.witness.told_over):
                self._world.witness.given_up_unfounded.add(key_id)

    def drop_pending(self, _: step.DropPending) -> None:
        self._client.pending = None

    def set_pair_aside(self, _: step.SetPairAside) -> None:
        self._client.set_aside(self._key_id)
        self._settled()

    def remove_tunnel(self, _: step.RemoveTunnel) -> None:
        request_id = self._world.request_id_of(self._sealed)
        self._client.up.discard(request_id)
        self._client.secrets.discard(request_id)

    def _settled(self) -> None:
        self._world.witness.unsettled = None


_PERFORMERS: dict[type[Action], Callable[[ClientExchange, Any], Event | None]] = {
    step.SealRequest: ClientExchange.seal_request,
    step.KeepPending: ClientExchange.keep_pending,
    step.OpenAnswer: ClientExchange.open_answer,
    step.ConfigureTunnel: ClientExchange.configure_tunnel,
    step.InitiateIKE: ClientExchange.initiate,
    step.ForgetSecrets: ClientExchange.forget_secrets,
    step.DestroyPair: ClientExchange.destroy_pair,
    step.SettleOthers: ClientExchange.settle_others,
    step.DropPending: ClientExchange.drop_pending,
    step.SetPairAside: ClientExchange.set_pair_aside,
    step.RemoveTunnel: ClientExchange.remove_tunnel,
}
