"""Steps 1 and 8 carried out: one request, from its making to its opened answer."""

import secrets
import time

from carnet import crash
from carnet.errors import UsageError
from carnet.exchange import client as step
from carnet.exchange.machine import Event
from carnet.token.onetime import OneTimePair
from carnet.wire import cbor
from carnet.wire.envelope import Envelope, parse_envelope
from carnet.wire.fault import WireError
from carnet.wire.messages import Grant, Refusal, Request
from carnet.wire.session_key import EphemeralKey, SessionBinding, SessionSecrets
from token_client.means import Means, Wish
from token_client.pending import Pending
from token_client.steps import OPENING
from token_client.uptime import uptime


class Asking:
    """One request with one key pair; what must be remembered of it is here."""

    def __init__(self, means: Means, wish: Wish, pair: OneTimePair) -> None:
        self._means = means
        self._wish = wish
        self._messages = means.booklet.messages_of(pair)
        self._sealed: bytes
        self._evidence = b""
        self._envelope: Envelope
        self._ephemeral: EphemeralKey
        self.pair = pair
        self.request: Request
        self.resumed: Pending | None = None
        """What an earlier run has kept, if it is gone on with."""
        self.refusal: Refusal | None = None
        self.silence: step.NoAnswer | None = None
        self.kept = True
        """Whether the next run could send the same bytes again."""
        self._taken_up = _moment()
        self.clock_behind = 0
        """Seconds, by the answer's date, which anybody on the way may have written."""

    @property
    def age(self) -> float:
        """Return how many seconds ago the request was made, at most."""
        before = self.resumed.age if self.resumed else 0
        return before + _moment() - self._taken_up

    def resume(self, pending: Pending) -> bool:
        """Take up what an earlier run sent; False if it asked for something else."""
        self.resumed = pending
        self._remember(pending.sealed, pending.ephemeral)
        request = self._messages.read_again(pending)
        if not self._wish.is_of(request):
            return False
        self.request = request
        return True

    def _remember(self, sealed: bytes, ephemeral: EphemeralKey) -> None:
        self._sealed, self._ephemeral = sealed, ephemeral
        self._envelope = parse_envelope(sealed)

    def seal_request(self, _: step.SealRequest) -> Event:
        """Step 1: sign on the token, and seal."""
        with self._means.steps.step(1):
            ephemeral = EphemeralKey.generate()
            self.request = Request(
                request_id=secrets.token_bytes(16),
                user_id=self._means.booklet.cover.user_id,
                objective_id=self._wish.objective_id,
                request_info=self._means.make_info(self._wish, ephemeral.public),
            )
            _check_request(self.request)
            sealed = self._messages.seal(self.request)
            self._evidence = sealed.evidence
            self._remember(sealed.data, ephemeral)
        return step.RequestSealed(sealed.data)

    def keep_pending(self, action: step.KeepPending) -> Event:
        """Step 1: keep the bytes, so that a lost answer costs no key pair."""
        pending = Pending(self.pair.key_id, action.sealed, self._ephemeral, self._evidence)
        self.kept = self._means.store.keep(pending)
        crash.reach("client.prepared")
        return step.PendingKept(action.sealed)

    def send_request(self, action: step.SendRequest) -> Event:
        """Step 1: send until an answer comes; steps 2 to 7 happen elsewhere."""
        started = time.perf_counter()
        delivery = self._means.sender.send(action.sealed)
        if isinstance(delivery.event, step.NoAnswer):
            self.silence = delivery.event
        elif isinstance(delivery.event, step.AnswerArrived):
            self._means.steps.answered(delivery.timing, time.perf_counter() - started)
            self.clock_behind = delivery.clock_behind
        return delivery.event

    def open_answer(self, action: step.OpenAnswer) -> Event:
        """Step 8: only the real Host can have sealed and signed this."""
        crash.reach("client.answered")
        try:
            with self._means.steps.part(OPENING):
                response = self._messages.open(action.answer, self._envelope, self._ephemeral)
        except WireError as error:
            self._means.sender.distrust(str(error))
            return step.AnswerFalse(self._sealed)
        if response.request_id != self.request.request_id:
            self._means.sender.distrust("it answers another request")
            return step.AnswerFalse(self._sealed)
        self._means.steps.opened(granted=isinstance(response, Grant))
        crash.reach("client.opened")
        if isinstance(response, Grant):
            return step.Granted(response)
        self.refusal = response
        return step.Refused(response)

    def open_session_key(self, grant: Grant) -> SessionSecrets:
        """Return the secrets that Target has sealed to this request, past Host.

        Raises WireError for a session key that is not for it.
        """
        binding = SessionBinding(
            request_id=self.request.request_id,
            user_id=self.request.user_id,
            target=self.request.request_info.target,
            objective_id=self.request.objective_id,
        )
        return self._ephemeral.open(grant.session_key, binding)


def _moment() -> float:
    now = uptime()
    return time.monotonic() if now is None else now


def _check_request(request: Request) -> None:
    """Refuse here what Host would refuse without a word, before anything is sent."""
    try:
        cbor.unpack(cbor.pack(request), Request)
    except WireError as error:
        raise UsageError(f"This cannot be asked for ({error.detail}); ask for less.") from error
