"""What the Target is asked to do; when, stands in the table of carnet.exchange.target."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from carnet.exchange.machine import Action
from carnet.wire.control import TunnelAnswer, TunnelRequest
from carnet.wire.messages import Request

Terms = TypeVar("Terms")
"""What the access control list grants; the agent's own type."""


@dataclass(frozen=True)
class LookUp(Action):
    """Find what this Request ID may have led to before."""

    request: TunnelRequest
    host: str


@dataclass(frozen=True)
class VerifyEvidence(Action):
    """Verify the Client's own signature, and that Host may speak for her (step 4)."""

    request: TunnelRequest
    host: str


@dataclass(frozen=True)
class Authorize(Action):
    """Ask membership, then the access control list (step 4)."""

    request: Request


@dataclass(frozen=True)
class InstallTunnel(Action, Generic[Terms]):
    """Make a fresh session key and configure this side of the tunnel (step 5)."""

    request: Request
    terms: Terms


@dataclass(frozen=True)
class Record(Action):
    """Write the answer down, with the evidence, before anybody sees it."""

    answer: TunnelAnswer


@dataclass(frozen=True)
class Withdraw(Action):
    """Take a tunnel of which nobody was told out of the IKE daemon."""


@dataclass(frozen=True)
class Reply(Action):
    """Return the answer to Host (step 6)."""

    answer: TunnelAnswer


@dataclass(frozen=True)
class AskAgainLater(Action):
    """Tell Host that no tunnel can be prepared just now."""

    reason: str


@dataclass(frozen=True)
class AwaitIKE(Action):
    """Wait for the Client's IKE, as long as Tunneling Info says and no longer."""


@dataclass(frozen=True)
class ConfirmTunnel(Action):
    """Compare what came up with what was agreed: nothing is downgraded."""


@dataclass(frozen=True)
class ForgetSecrets(Action):
    """Take the pre-shared keys out of the IKE daemon (step 10)."""


@dataclass(frozen=True)
class RecordEstablished(Action):
    """Write down that the tunnel stands."""


@dataclass(frozen=True)
class AwaitExpiry(Action):
    """Wait for the end of the session that Tunneling Info names."""


@dataclass(frozen=True)
class AwaitReturn(Action):
    """Wait for a Client that is silent to come back, for so long as she may be away."""


@dataclass(frozen=True)
class RemoveTunnel(Action):
    """Take the tunnel, and all that came with it, out of the IKE daemon."""

    reason: str


@dataclass(frozen=True)
class RecordEnding(Action):
    """Write down that the tunnel is to end, so that no restart takes it for one that stands."""

    reason: str


@dataclass(frozen=True)
class RecordEnded(Action):
    """Write down that the tunnel ended, for this Target's accounts and for Host's."""

    reason: str
