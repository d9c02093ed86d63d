"""The Client's part: steps 1, 8, 9 and 10 of the paper.

A key pair is destroyed only when its tunnel stands, or when a sealed answer of the
Host has said that it is spent and nothing more can come of it. An unsealed no proves
nothing, so it only sets the pair aside.
"""

from enum import StrEnum

from carnet.exchange.machine import Action, Actions, Event, Machine, Table, nothing
from carnet.wire.messages import Grant, Refusal


class State(StrEnum):
    """Where the Client stands with one key pair."""

    IDLE = "idle"
    CHOSEN = "chosen"
    SEALED = "sealed"
    PREPARED = "prepared"
    """Durable (in memory only): the sealed bytes can be sent again, also by the next run."""
    ANSWERED = "answered"
    OPENED = "opened"
    CONFIGURED = "configured"
    ESTABLISHED = "established"
    REFUSED = "refused"
    SET_ASIDE = "set aside"
    SUSPENDED = "suspended"
    """No answer came; the same bytes are sent again on the next run."""
    FAILED = "failed"
    """The answer came, IKE did not succeed; the answer can still be fetched again."""
    GIVEN_UP = "given up"
    """The answer was fetched again, and no tunnel can come of it any more."""


class PairChosen(Event, frozen=True):
    """The next valid key pair on the token was taken."""

    key_id: bytes


class PendingFound(Event, frozen=True):
    """An earlier run left a request that was sent and not settled."""

    sealed: bytes


class RequestSealed(Event, frozen=True):
    """The token signed; the request is sealed to the pair."""

    sealed: bytes


class PendingKept(Event, frozen=True):
    """The sealed bytes are kept, so that they can be sent again."""

    sealed: bytes


class AnswerArrived(Event, frozen=True):
    """Bytes came back that claim to be the Host's sealed answer."""

    answer: bytes


class UnsealedNo(Event, frozen=True):
    """A refusal that anybody on the way could have sent."""


class NoAnswer(Event, frozen=True):
    """Time is up, and nothing came that could be an answer."""

    code: str
    """Who is silent, in a word."""
    detail: str


class AnswerFalse(Event, frozen=True):
    """What came back does not open as the Host's answer to this request."""

    sealed: bytes


class Granted(Event, frozen=True):
    """The Host's sealed answer: a tunnel."""

    grant: Grant


class Refused(Event, frozen=True):
    """The Host's sealed answer: no tunnel."""

    refusal: Refusal


class TunnelConfigured(Event, frozen=True):
    """IPsec on this machine is ready to initiate."""

    grant: Grant


class TunnelUp(Event, frozen=True):
    """IKE succeeded, and what came up is what was agreed."""

    grant: Grant


class TunnelFailed(Event, frozen=True):
    """The tunnel could not be configured, or IKE failed."""

    reason: str


class TunnelHopeless(Event, frozen=True):
    """As before, and Target waits for this request no more."""

    reason: str


class SealRequest(Action, frozen=True):
    """Build the request, sign it on the token, seal it to the pair (step 1)."""

    key_id: bytes


class KeepPending(Action, frozen=True):
    """Keep the sealed bytes and the ephemeral key where only memory is, sealed to the token."""

    sealed: bytes


class SendRequest(Action, frozen=True):
    """Send the same bytes until an answer comes or time is up."""

    sealed: bytes


class OpenAnswer(Action, frozen=True):
    """Open and verify on the token what came back (step 8)."""

    answer: bytes


class ConfigureTunnel(Action, frozen=True):
    """Give IPsec the tunnel and its secrets (step 9)."""

    grant: Grant


class InitiateIKE(Action, frozen=True):
    """Start the IKE negotiation (step 9)."""

    grant: Grant


class ForgetSecrets(Action, frozen=True):
    """Take the pre-shared keys out of the IKE daemon: the SA needs them no more."""


class DestroyPair(Action, frozen=True):
    """Destroy this pair's private key on the token (step 10)."""


class SettleOthers(Action, frozen=True):
    """Destroy what the Host says is invalid; what was set aside and is not may be used again."""

    invalid_pairs: tuple[bytes, ...]


class DropPending(Action, frozen=True):
    """Forget the request: its exchange is over."""


class SetPairAside(Action, frozen=True):
    """Keep the pair, but take another one until the Host says what it is."""


class RemoveTunnel(Action, frozen=True):
    """Take out of IPsec whatever was configured."""


def _give_up(_: TunnelHopeless) -> Actions:
    return (RemoveTunnel(), DestroyPair(), DropPending())


_S = State

TABLE: Table[State] = {
    # step 1
    (_S.IDLE, PairChosen): (_S.CHOSEN, lambda e: (SealRequest(e.key_id),)),
    (_S.CHOSEN, RequestSealed): (_S.SEALED, lambda e: (KeepPending(e.sealed),)),
    (_S.SEALED, PendingKept): (_S.PREPARED, lambda e: (SendRequest(e.sealed),)),
    (_S.IDLE, PendingFound): (_S.PREPARED, lambda e: (SendRequest(e.sealed),)),
    (_S.PREPARED, NoAnswer): (_S.SUSPENDED, nothing),
    (_S.PREPARED, UnsealedNo): (_S.SET_ASIDE, lambda _: (SetPairAside(), DropPending())),
    # step 8
    (_S.PREPARED, AnswerArrived): (_S.ANSWERED, lambda e: (OpenAnswer(e.answer),)),
    (_S.ANSWERED, AnswerFalse): (_S.PREPARED, lambda e: (SendRequest(e.sealed),)),
    (_S.ANSWERED, Refused): (
        _S.REFUSED,
        lambda e: (DestroyPair(), SettleOthers(e.refusal.invalid_pairs), DropPending()),
    ),
    # step 9
    (_S.ANSWERED, Granted): (_S.OPENED, lambda e: (ConfigureTunnel(e.grant),)),
    (_S.OPENED, TunnelFailed): (_S.FAILED, lambda _: (RemoveTunnel(),)),
    (_S.OPENED, TunnelHopeless): (_S.GIVEN_UP, _give_up),
    (_S.OPENED, TunnelConfigured): (_S.CONFIGURED, lambda e: (InitiateIKE(e.grant),)),
    (_S.CONFIGURED, TunnelFailed): (_S.FAILED, lambda _: (RemoveTunnel(),)),
    (_S.CONFIGURED, TunnelHopeless): (_S.GIVEN_UP, _give_up),
    # step 10
    (_S.CONFIGURED, TunnelUp): (
        _S.ESTABLISHED,
        lambda e: (
            ForgetSecrets(),
            DestroyPair(),
            SettleOthers(e.grant.invalid_pairs),
            DropPending(),
        ),
    ),
}


DURABLE = frozenset({_S.PREPARED})
"""The state that the next run of the Client can go on from; what it rests on is in memory."""


def machine() -> Machine[State]:
    """Return a Client that has done nothing yet."""
    return Machine(TABLE, State.IDLE)
