"""What Host and Target say to each other, over mutually authenticated TLS 1.3."""

from typing import Annotated

from msgspec import Meta

from carnet.wire.fields import (
    Custody,
    Message,
    PublicKey,
    RequestId,
    SuiteNumber,
    Text,
    Time,
    Token,
    UserId,
)
from carnet.wire.messages import RefusalCode, TunnelingInfo
from carnet.wire.session_key import SEALED_SESSION_KEY_LENGTH

MAX_CONTROL = 32 * 1024
"""Bytes of a control message."""
CONTROL_VERSION = 1


class TunnelRequest(Message, frozen=True, kw_only=True):
    """Step 3: Host's statement of who the user is, beside the Client's own words."""

    version: Annotated[int, Meta(ge=CONTROL_VERSION, le=CONTROL_VERSION)]
    user_id: UserId
    custody: Custody
    suite: SuiteNumber
    public_key: PublicKey
    """The pair that signed the evidence; with it Target verifies for itself."""
    evidence: Annotated[bytes, Meta(max_length=8 * 1024)]
    """The Client's signed request (COSE_Sign1) as it stands."""


class TunnelGrant(Message, frozen=True, kw_only=True, tag_field="outcome", tag="granted"):
    """Step 6: the session key, sealed to the Client, and Tunneling Info."""

    request_id: RequestId
    session_key: Annotated[
        bytes, Meta(min_length=SEALED_SESSION_KEY_LENGTH, max_length=SEALED_SESSION_KEY_LENGTH)
    ]
    tunneling_info: TunnelingInfo


class TunnelRefusal(Message, frozen=True, kw_only=True, tag_field="outcome", tag="refused"):
    """Step 6, the other way."""

    request_id: RequestId
    code: RefusalCode
    reason: Text


TunnelAnswer = TunnelGrant | TunnelRefusal


class TunnelEnded(Message, frozen=True, kw_only=True):
    """One tunnel's end, for Host's accounts."""

    number: Annotated[int, Meta(ge=1, le=2**53)]
    """Counts up at Target; Host asks for what came after the last it has."""
    request_id: RequestId
    reason: Token
    ended_at: Time


class EndedTunnels(Message, frozen=True, kw_only=True):
    """What ended since Host last asked, oldest first."""

    tunnels: Annotated[tuple[TunnelEnded, ...], Meta(max_length=64)]
