"""The Host's part: steps 2, 3, 7 and 8 of the paper.

The request goes on to Target in one state only, and the way into that state is a
pair that the Key Database holds invalid, durably, together with the lease of the request:
of the Host's processes one works on a request at a time, and another only when the
lease of the first ran out. Whatever fails before the seal is open and the signature
verified ends in one and the same rejection.
"""

from enum import StrEnum

from carnet.exchange.machine import Action, Event, Machine, Table, nothing
from carnet.wire.control import TunnelAnswer
from carnet.wire.envelope import Envelope, SignedRequest


class State(StrEnum):
    """Where the Host stands with one request."""

    NEW = "new"
    ADMITTING = "admitting"
    LOOKING = "looking"
    OPENING = "opening"
    SPENDING = "spending"
    SPENT = "spent"
    """Durable: the pair is invalid, with the digest of the request that spent it."""
    SEALING = "sealing"
    STORING = "storing"
    ANSWERED = "answered"
    """Durable: the sealed response is stored, and needs no private key to be sent again."""
    DONE = "done"
    REJECTED = "rejected"
    SUSPENDED = "suspended"
    """Target does not answer, or another process works on it; the same bytes go on from here."""
    PUT_OFF = "put off"
    """Over a limit, before anything was looked up."""


class Arrived(Event, frozen=True):
    """A sealed message came in; nothing of it is proved."""

    envelope: Envelope


class Admitted(Event, frozen=True):
    """The limits let it come near the token."""

    envelope: Envelope


class OverLimit(Event, frozen=True):
    """This address, or all together, asked for too much."""

    seconds: int
    """After which it may be otherwise."""


class PairValid(Event, frozen=True):
    """The Key Database knows the pair, and it is valid."""

    envelope: Envelope


class PairUnusable(Event, frozen=True):
    """The pair is unknown, or invalid and not by these bytes."""

    reason: str


class AnswerKept(Event, frozen=True):
    """These very bytes were answered before, and the answer is still kept."""

    answer: bytes


class RequestUnanswered(Event, frozen=True):
    """These very bytes spent the pair and were left unanswered; the lease is ours now."""

    signed: SignedRequest


class InProgress(Event, frozen=True):
    """These very bytes spent the pair, and another process of the Host has the lease."""


class ClockLeapt(Event, frozen=True):
    """These very bytes are too old by a clock that has leapt: it may be put back."""


class RequestOpened(Event, frozen=True):
    """The seal opened and the signature holds."""

    signed: SignedRequest


class OpeningFailed(Event, frozen=True):
    """The seal does not open, or the signature does not hold."""

    reason: str


class PairSpent(Event, frozen=True):
    """The pair is invalid now, durably, and by this request; its lease is ours."""

    signed: SignedRequest


class PairTaken(Event, frozen=True):
    """Another request was quicker; its answer may have cost the private key already."""

    envelope: Envelope


class TargetAnswered(Event, frozen=True):
    """Target granted or refused; or Host itself refused in its stead."""

    answer: TunnelAnswer


class TargetSilent(Event, frozen=True):
    """Target cannot be reached, or cannot prepare a tunnel just now."""

    reason: str


class ResponseSealed(Event, frozen=True):
    """The HSM signed the response; it is sealed to the pair."""

    response: bytes
    outcome: str
    """"granted", or the refusal's code, for the accounts."""


class ResponseStored(Event, frozen=True):
    """The response is stored, durably."""

    response: bytes


class KeyDestroyed(Event, frozen=True):
    """The pair's private key is gone from the HSM."""


class Admit(Action, frozen=True):
    """Ask the limits, before anything is looked up: their answer tells nothing of a pair."""

    envelope: Envelope


class PutOff(Action, frozen=True):
    """Tell whoever it is to come again in so many seconds."""

    seconds: int


class LookUp(Action, frozen=True):
    """Find the pair in the Key Database, and what these bytes may have led to before."""

    envelope: Envelope


class OpenRequest(Action, frozen=True):
    """Decrypt on the HSM and verify the signature (step 2)."""

    envelope: Envelope


class SpendPair(Action, frozen=True):
    """Compare and set: valid to invalid, with digest and Request ID (step 3)."""

    signed: SignedRequest


class PassOn(Action, frozen=True):
    """Pass the user information on to Target, again until it answers (step 3)."""

    signed: SignedRequest


class SealResponse(Action, frozen=True):
    """Sign the response on the HSM and seal it to the pair (step 7)."""

    answer: TunnelAnswer


class StoreResponse(Action, frozen=True):
    """Store the sealed response by the digest of the request."""

    response: bytes
    outcome: str


class Reply(Action, frozen=True):
    """Send the sealed response to the Client (step 8)."""

    response: bytes


class DestroyKey(Action, frozen=True):
    """Destroy the pair's private key on the HSM (step 10), off the path of the answer."""


class Reject(Action, frozen=True):
    """Give the one answer that strangers get; the reason goes to the log."""

    reason: str


class LetGo(Action, frozen=True):
    """Give the lease back: whoever gets the bytes next, takes them up at once."""


class AskAgainLater(Action, frozen=True):
    """Tell the Client, who is authenticated by now, to send the same bytes again."""

    reason: str


NOT_READY = "host-not-ready"
"""What AskAgainLater says where the reason is at the Host itself."""

_S = State

TABLE: Table[State] = {
    (_S.NEW, Arrived): (_S.ADMITTING, lambda e: (Admit(e.envelope),)),
    (_S.ADMITTING, OverLimit): (_S.PUT_OFF, lambda e: (PutOff(e.seconds),)),
    (_S.ADMITTING, Admitted): (_S.LOOKING, lambda e: (LookUp(e.envelope),)),
    (_S.LOOKING, PairUnusable): (_S.REJECTED, lambda e: (Reject(e.reason),)),
    (_S.LOOKING, AnswerKept): (_S.DONE, lambda e: (Reply(e.answer),)),
    (_S.LOOKING, InProgress): (_S.SUSPENDED, lambda _: (AskAgainLater(NOT_READY),)),
    (_S.LOOKING, ClockLeapt): (_S.SUSPENDED, lambda _: (AskAgainLater(NOT_READY),)),
    (_S.LOOKING, RequestUnanswered): (_S.SPENT, lambda e: (PassOn(e.signed),)),
    # step 2
    (_S.LOOKING, PairValid): (_S.OPENING, lambda e: (OpenRequest(e.envelope),)),
    (_S.OPENING, PairTaken): (_S.LOOKING, lambda e: (LookUp(e.envelope),)),
    (_S.OPENING, OpeningFailed): (_S.REJECTED, lambda e: (Reject(e.reason),)),
    # step 3
    (_S.OPENING, RequestOpened): (_S.SPENDING, lambda e: (SpendPair(e.signed),)),
    (_S.SPENDING, PairTaken): (_S.LOOKING, lambda e: (LookUp(e.envelope),)),
    (_S.SPENDING, PairSpent): (_S.SPENT, lambda e: (PassOn(e.signed),)),
    (_S.SPENT, TargetSilent): (_S.SUSPENDED, lambda e: (LetGo(), AskAgainLater(e.reason))),
    # step 7
    (_S.SPENT, TargetAnswered): (_S.SEALING, lambda e: (SealResponse(e.answer),)),
    (_S.SEALING, ResponseSealed): (
        _S.STORING,
        lambda e: (StoreResponse(e.response, e.outcome),),
    ),
    (_S.SEALING, AnswerKept): (_S.DONE, lambda e: (Reply(e.answer),)),
    (_S.STORING, AnswerKept): (_S.DONE, lambda e: (Reply(e.answer),)),
    # step 8
    (_S.STORING, ResponseStored): (_S.ANSWERED, lambda e: (Reply(e.response), DestroyKey())),
    (_S.ANSWERED, KeyDestroyed): (_S.DONE, nothing),
}


DURABLE = frozenset({_S.SPENT, _S.ANSWERED})
"""The states that a restarted Host goes on from."""


def machine() -> Machine[State]:
    """Return a Host that has a request before it."""
    return Machine(TABLE, State.NEW)
