"""The Target's part: steps 4, 5 and 6 of the paper, and the tunnel's life after.

An answer is given in the row after the record is durable, never before. What is
asked again by the same Request ID gets the answer of the record.
"""

from enum import StrEnum
from typing import Generic

from carnet.exchange.machine import Action, Event, Machine, Table, nothing
from carnet.exchange.target_actions import (
    AskAgainLater,
    Authorize,
    AwaitExpiry,
    AwaitIKE,
    AwaitReturn,
    CheckTunnel,
    ConfirmTunnel,
    ForgetSecrets,
    InstallTunnel,
    LookUp,
    Record,
    RecordEnded,
    RecordEnding,
    RecordEstablished,
    RemoveTunnel,
    Reply,
    Terms,
    VerifyEvidence,
    Withdraw,
)
from carnet.wire.control import TunnelAnswer, TunnelGrant, TunnelRefusal, TunnelRequest
from carnet.wire.messages import RefusalCode, Request


class State(StrEnum):
    """Where the Target stands with one request, and then with its tunnel."""

    NEW = "new"
    LOOKING = "looking"
    VERIFYING = "verifying"
    AUTHORIZING = "authorizing"
    REFUSING = "refusing"
    REFUSED = "refused"
    """Durable: no tunnel, and why."""
    INSTALLING = "installing"
    RECORDING = "recording"
    PREPARED = "prepared"
    """Durable: the record, without secrets; the pre-shared key is in the IKE daemon's memory."""
    CONFIRMING = "confirming"
    FORGETTING = "forgetting"
    ESTABLISHING = "establishing"
    ESTABLISHED = "established"
    """Durable: the SA is up, the pre-shared key is forgotten, unless the Client may come back."""
    ENDING = "ending"
    """Durable once the IKE daemon has refused: the tunnel is to end, and why."""
    CLOSING = "closing"
    ENDED = "ended"
    """Durable: nothing of the tunnel is left, and why."""
    REPLIED = "replied"
    SUSPENDED = "suspended"


class Arrived(Event, frozen=True):
    """Host passed a user on; which Host it is, TLS has proved."""

    request: TunnelRequest
    host: str


class AnswerKnown(Event, frozen=True):
    """This Request ID was answered before, with the same evidence."""

    answer: TunnelAnswer


class RequestNew(Event, frozen=True):
    """This Request ID was never seen."""

    request: TunnelRequest
    host: str


class EvidenceTrue(Event, frozen=True):
    """The Client's signature holds, and says what Host says."""

    request: Request


class NotAuthorized(Event, frozen=True):
    """The user may not have what she asks for, or Host may not ask for her."""

    request_id: bytes
    code: RefusalCode
    reason: str


class Authorized(Event, Generic[Terms], frozen=True):
    """She is a member, and the access control list grants these terms."""

    request: Request
    terms: Terms


class TunnelInstalled(Event, frozen=True):
    """The fresh pre-shared key is in the IKE daemon, which waits for the Client."""

    grant: TunnelGrant


class NotInstalled(Event, frozen=True):
    """The IKE daemon does not answer, or does not take the tunnel."""

    reason: str


class Recorded(Event, frozen=True):
    """The record of the answer is durable."""

    answer: TunnelAnswer


class NotRecorded(Event, frozen=True):
    """The record could not be written."""

    reason: str


class CameUp(Event, frozen=True):
    """The SA is up."""


class CameAnew(Event, frozen=True):
    """Something of it came up, was rekeyed or moved, and it may be another than before."""


class WentSilent(Event, frozen=True):
    """The Client does not answer any more, and may come back: her session lives on."""


class TunnelConfirmed(Event, frozen=True):
    """The SA is all that was agreed."""


class SecretsForgotten(Event, frozen=True):
    """The IKE daemon has no pre-shared key of this tunnel any more."""


class EstablishedRecorded(Event, frozen=True):
    """The record says that the SA is up."""


class Over(Event, frozen=True):
    """The tunnel's time is over: unused, expired, gone down, or ended by somebody."""

    reason: str


class TunnelRemoved(Event, frozen=True):
    """Nothing of the tunnel is left in the IKE daemon."""

    reason: str


class NotRemoved(Event, frozen=True):
    """The IKE daemon does not answer, or refuses; the removal is tried again."""

    reason: str
    """Why the tunnel is to end."""


class EndRecorded(Event, frozen=True):
    """The record says that the tunnel ended, and why."""


def _refusal(event: NotAuthorized) -> tuple[Action, ...]:
    return (
        Record(
            TunnelRefusal(request_id=event.request_id, code=event.code, reason=event.reason),
        ),
    )


def _removal(event: Over | NotRecorded) -> tuple[Action, ...]:
    return (RemoveTunnel(event.reason),)


_S = State

TABLE: Table[State] = {
    (_S.NEW, Arrived): (_S.LOOKING, lambda e: (LookUp(e.request, e.host),)),
    (_S.LOOKING, AnswerKnown): (_S.REPLIED, lambda e: (Reply(e.answer),)),
    (_S.LOOKING, NotAuthorized): (_S.REFUSING, _refusal),
    # step 4
    (_S.LOOKING, RequestNew): (_S.VERIFYING, lambda e: (VerifyEvidence(e.request, e.host),)),
    (_S.VERIFYING, NotAuthorized): (_S.REFUSING, _refusal),
    (_S.VERIFYING, EvidenceTrue): (_S.AUTHORIZING, lambda e: (Authorize(e.request),)),
    (_S.AUTHORIZING, NotAuthorized): (_S.REFUSING, _refusal),
    (_S.AUTHORIZING, NotInstalled): (_S.SUSPENDED, lambda e: (AskAgainLater(e.reason),)),
    (_S.REFUSING, Recorded): (_S.REFUSED, lambda e: (Reply(e.answer),)),
    (_S.REFUSING, NotRecorded): (_S.SUSPENDED, lambda e: (AskAgainLater(e.reason),)),
    # step 5
    (_S.AUTHORIZING, Authorized): (
        _S.INSTALLING,
        lambda e: (InstallTunnel(e.request, e.terms),),
    ),
    (_S.INSTALLING, NotAuthorized): (_S.REFUSING, _refusal),
    (_S.INSTALLING, NotInstalled): (_S.SUSPENDED, lambda e: (AskAgainLater(e.reason),)),
    (_S.INSTALLING, TunnelInstalled): (_S.RECORDING, lambda e: (Record(e.grant),)),
    # step 6
    (_S.RECORDING, Recorded): (_S.PREPARED, lambda e: (Reply(e.answer), AwaitIKE())),
    (_S.RECORDING, NotRecorded): (
        _S.SUSPENDED,
        lambda e: (Withdraw(), AskAgainLater(e.reason)),
    ),
    # step 10
    (_S.PREPARED, CameAnew): (_S.PREPARED, lambda _: (CheckTunnel(whole=False),)),
    (_S.PREPARED, CameUp): (_S.CONFIRMING, lambda _: (ConfirmTunnel(),)),
    (_S.CONFIRMING, TunnelConfirmed): (_S.FORGETTING, lambda _: (ForgetSecrets(),)),
    # the IKE daemon was silent, and what came up is looked at again
    (_S.CONFIRMING, CameAnew): (_S.CONFIRMING, lambda _: (ConfirmTunnel(),)),
    (_S.CONFIRMING, CameUp): (_S.CONFIRMING, lambda _: (ConfirmTunnel(),)),
    (_S.FORGETTING, CameAnew): (_S.CONFIRMING, lambda _: (ConfirmTunnel(),)),
    (_S.FORGETTING, CameUp): (_S.CONFIRMING, lambda _: (ConfirmTunnel(),)),
    (_S.FORGETTING, SecretsForgotten): (_S.ESTABLISHING, lambda _: (RecordEstablished(),)),
    (_S.ESTABLISHING, EstablishedRecorded): (_S.ESTABLISHED, lambda _: (AwaitExpiry(),)),
    # away, and back
    (_S.ESTABLISHED, WentSilent): (_S.ESTABLISHED, lambda _: (AwaitReturn(),)),
    (_S.ESTABLISHED, CameUp): (_S.ESTABLISHED, lambda _: (ConfirmTunnel(),)),
    (_S.ESTABLISHED, CameAnew): (_S.ESTABLISHED, lambda _: (CheckTunnel(whole=True),)),
    (_S.ESTABLISHED, TunnelConfirmed): (_S.ESTABLISHED, lambda _: (AwaitExpiry(),)),
    # the tunnel's end
    (_S.PREPARED, Over): (_S.ENDING, _removal),
    (_S.CONFIRMING, Over): (_S.ENDING, _removal),
    (_S.FORGETTING, Over): (_S.ENDING, _removal),
    (_S.ESTABLISHING, NotRecorded): (_S.ENDING, _removal),
    (_S.ESTABLISHING, Over): (_S.ENDING, _removal),
    (_S.ESTABLISHED, Over): (_S.ENDING, _removal),
    (_S.ENDING, TunnelRemoved): (_S.CLOSING, lambda e: (RecordEnded(e.reason),)),
    (_S.ENDING, NotRemoved): (_S.ENDING, lambda e: (RecordEnding(e.reason),)),
    (_S.ENDING, Over): (_S.ENDING, _removal),
    (_S.ENDING, CameUp): (_S.ENDING, nothing),
    (_S.ENDING, CameAnew): (_S.ENDING, nothing),
    (_S.CLOSING, EndRecorded): (_S.ENDED, nothing),
    (_S.CLOSING, NotRecorded): (_S.CLOSING, nothing),
    (_S.CLOSING, Over): (_S.CLOSING, lambda e: (RecordEnded(e.reason),)),
    (_S.CLOSING, CameUp): (_S.CLOSING, nothing),
    (_S.CLOSING, CameAnew): (_S.CLOSING, nothing),
}


DURABLE = frozenset({_S.REFUSED, _S.PREPARED, _S.ESTABLISHED, _S.ENDING, _S.ENDED})
"""The states that a restarted Target finds in its records."""


def machine(state: State = State.NEW) -> Machine[State]:
    """Return a Target with a request before it, or in the state that its record tells."""
    return Machine(TABLE, state)
