"""What the Key Database says of a key pair, and of the request that spent it."""

from dataclasses import dataclass
from enum import StrEnum


class PairState(StrEnum):
    """The two states of the paper."""

    VALID = "valid"
    INVALID = "invalid"


class Reason(StrEnum):
    """Why a pair is invalid."""

    SPENT = "spent"
    REVOKED = "revoked"
    EXPIRED = "expired"
    LOST = "lost"


@dataclass(frozen=True)
class PairRecord:
    """A key pair as the Key Database has it."""

    key_id: bytes
    user_id: str
    token_serial: str
    custody: str
    suite: int
    public_key: bytes
    state: PairState
    not_after: int | None
    expired: bool
    """Whether `not_after` is past, by the database's clock."""
    host_key_id: bytes | None = None
    """In custody `split`, the Host's key that requests are sealed to."""


@dataclass(frozen=True)
class RequestRecord:
    """The request that spent a pair."""

    key_id: bytes
    digest: bytes
    evidence: bytes
    outcome: str | None
    response: bytes | None
    """The sealed response, as long as it is kept."""
    age: int
    """Seconds since it spent the pair, by the database's clock."""


@dataclass(frozen=True)
class NewPair:
    """A pair that a batch brings."""

    key_id: bytes
    user_id: str
    token_serial: str
    batch_id: bytes
    label: str
    custody: str
    suite: int
    public_key: bytes
    not_after: int | None
    host_key_id: bytes | None = None


@dataclass(frozen=True)
class Count:
    """How many pairs of a user are in a state."""

    user_id: str
    state: str
    """`valid`, or the reason why they are not."""
    pairs: int
    destruction_owed: int
    """Of how many the private key may still be on the HSM."""
