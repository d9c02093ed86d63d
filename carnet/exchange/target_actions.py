"""What the Target is asked to do; when, stands in the table of carnet.exchange.target."""

from typing import Generic, TypeVar

from carnet.exchange.machine import Action
from carnet.wire.control import TunnelAnswer, TunnelRequest
from carnet.wire.messages import Request

Terms = TypeVar("Terms")
"""What the access control list grants; the agent's own type."""


class LookUp(Action, frozen=True):
    """Find what this Request ID may have led to before."""

    request: TunnelRequest
    host: str


class VerifyEvidence(Action, frozen=True):
    """Verify the Client's own signature, and that Host may speak for her (step 4)."""

    request: TunnelRequest
    host: str


class Authorize(Action, frozen=True):
    """Ask membership, then the access control list (step 4)."""

    request: Request


class InstallTunnel(Action, Generic[Terms], frozen=True):
    """Make a fresh session key and configure this side of the tunnel (step 5)."""

    request: Request
    terms: Terms


class Record(Action, frozen=True):
    """Write the answer down, with the evidence, before anybody sees it."""

    answer: TunnelAnswer


class Withdraw(Action, frozen=True):
    """Take a tunnel of which nobody was told out of the IKE daemon."""


class Reply(Action, frozen=True):
    """Return the answer to Host (step 6)."""

    answer: TunnelAnswer


class AskAgainLater(Action, frozen=True):
    """Tell Host that no tunnel can be prepared just now."""

    reason: str


class AwaitIKE(Action, frozen=True):
    """Wait for the Client's IKE, as long as Tunneling Info says and no longer."""


class ConfirmTunnel(Action, frozen=True):
    """Compare what came up with what was agreed: nothing is downgraded."""


class CheckTunnel(Action, frozen=True):
    """See that it has no more SAs than it may and, once it stood whole, compare it again."""

    whole: bool


class ForgetSecrets(Action, frozen=True):
    """Take the pre-shared keys out of the IKE daemon (step 10)."""


class RecordEstablished(Action, frozen=True):
    """Write down that the tunnel stands."""


class AwaitExpiry(Action, frozen=True):
    """Wait for the end of the session that Tunneling Info names."""


class AwaitReturn(Action, frozen=True):
    """Wait for a Client that is silent to come back, for so long as she may be away."""


class RemoveTunnel(Action, frozen=True):
    """Take the tunnel, and all that came with it, out of the IKE daemon."""

    reason: str


class RecordEnding(Action, frozen=True):
    """Write down that the tunnel is to end, so that no restart takes it for one that stands."""

    reason: str


class RecordEnded(Action, frozen=True):
    """Write down that the tunnel ended, for this Target's accounts and for Host's."""

    reason: str
