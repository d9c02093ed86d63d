"""What Client and Host say to each other, once the seal is open.

Request:  Request ID ‖ User ID ‖ Objective-ID ‖ Request Info ‖ Authentication Tag
Response: Request ID ‖ Session Key ‖ Tunneling Info ‖ Authentication Tag

The Authentication Tag is the COSE signature around the payload (carnet.wire.envelope).
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from carnet.canonical import check_addresses, check_networks
from carnet.wire.fields import (
    Address,
    IkeVersion,
    IPsecMode,
    KeyId,
    Message,
    Name,
    Network,
    ObjectiveId,
    RequestId,
    Seconds,
    Text,
    Time,
    Token,
    UserId,
)
from carnet.wire.session_key import EPHEMERAL_KEY_LENGTH, SEALED_SESSION_KEY_LENGTH

MAX_RESPONSE = 64 * 1024
"""Bytes of a response; it lists the token's invalid pairs, so it may be longer than a request."""
MAX_INVALID_PAIRS = 2048


class ClientDriver(Message, frozen=True, kw_only=True):
    """An IPsec implementation that the Client has, and what it can carry."""

    name: Name
    ike_versions: Annotated[tuple[IkeVersion, ...], Meta(min_length=1, max_length=2)]
    objectives: Annotated[tuple[ObjectiveId, ...], Meta(max_length=4)]
    modes: Annotated[tuple[IPsecMode, ...], Meta(max_length=2)]
    ppk: bool
    """Whether it takes a post-quantum pre-shared key (RFC 8784)."""


class RequestInfo(Message, frozen=True, kw_only=True):
    """The paper's Request Info: what the user wants, and what her machine has."""

    target: Name
    networks: Annotated[tuple[Network, ...], Meta(max_length=32)] | None
    """Networks wanted behind Target; none: Target alone; null: all that she may have."""
    lifetime: Seconds | None
    """Session lifetime wanted, in seconds; null: as long as she may have."""
    drivers: Annotated[tuple[ClientDriver, ...], Meta(min_length=1, max_length=8)]
    nat: bool | None
    """Whether the Client sits behind NAT; null: it does not know."""
    ephemeral_key: Annotated[
        bytes, Meta(min_length=EPHEMERAL_KEY_LENGTH, max_length=EPHEMERAL_KEY_LENGTH)
    ]
    """The Client's ML-KEM-768 + X25519 key of this request, to which Target seals."""

    def __post_init__(self) -> None:
        """Raise ValueError for networks that are none."""
        check_networks(self.networks or ())


class Request(Message, frozen=True, kw_only=True):
    """Step 1: a user asks for a tunnel."""

    request_id: RequestId
    user_id: UserId
    objective_id: ObjectiveId
    request_info: RequestInfo


class TunnelingInfo(Message, frozen=True, kw_only=True):
    """The paper's Tunneling Info: all that the Client needs for its side of the tunnel."""

    target_addresses: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=8)]
    client_identity: Token
    """IKE identities, of this session only."""
    target_identity: Token
    objective_id: ObjectiveId
    mode: IPsecMode
    ike_version: IkeVersion
    ike_proposals: Annotated[tuple[Token, ...], Meta(min_length=1, max_length=8)]
    esp_proposals: Annotated[tuple[Token, ...], Meta(max_length=8)]
    ah_proposals: Annotated[tuple[Token, ...], Meta(max_length=8)]
    ppk_id: Token | None
    """Identity of the post-quantum key (RFC 8784); null: the tunnel has none."""
    networks: Annotated[tuple[Network, ...], Meta(max_length=32)]
    """Traffic selectors of Target's side."""
    virtual_address: Address | None
    dns: Annotated[tuple[Address, ...], Meta(max_length=8)]
    mtu: Annotated[int, Meta(ge=576, le=65535)] | None
    force_udp: bool
    """UDP encapsulation even where no NAT is found."""
    initiate_within: Seconds
    """Seconds from this answer on for which Target waits for IKE."""
    expires: Time
    """When the session ends."""

    def __post_init__(self) -> None:
        """Raise ValueError for addresses and networks that are none."""
        check_networks(self.networks)
        check_addresses(self.target_addresses + self.dns)
        check_addresses((self.virtual_address,) if self.virtual_address else ())


class RefusalCode(StrEnum):
    """Why Host or Target refuses, in a sealed answer."""

    UNKNOWN_TARGET = "unknown-target"
    WRONG_USER = "wrong-user"
    UNKNOWN_USER = "unknown-user"
    OBJECTIVE = "objective-not-allowed"
    NETWORK = "network-not-allowed"
    LIFETIME = "lifetime-not-allowed"
    CANNOT_CARRY = "cannot-carry"
    EVIDENCE = "evidence-not-accepted"
    NO_ADDRESS = "no-address-left"
    TOO_LATE = "too-late"


InvalidPairs = Annotated[tuple[KeyId, ...], Meta(max_length=MAX_INVALID_PAIRS)]


class Grant(Message, frozen=True, kw_only=True, tag_field="outcome", tag="granted"):
    """Step 7: the tunnel is the user's."""

    request_id: RequestId
    session_key: Annotated[
        bytes, Meta(min_length=SEALED_SESSION_KEY_LENGTH, max_length=SEALED_SESSION_KEY_LENGTH)
    ]
    """The paper's Session Key, sealed by Target to the Client's ephemeral key."""
    tunneling_info: TunnelingInfo
    invalid_pairs: InvalidPairs
    """Which other pairs of this token are invalid: what was set aside is burned or used again."""


class Refusal(Message, frozen=True, kw_only=True, tag_field="outcome", tag="refused"):
    """Step 7, the other way: there is no tunnel, and why."""

    request_id: RequestId
    code: RefusalCode
    reason: Text
    invalid_pairs: InvalidPairs


Response = Grant | Refusal
