"""What the Key Database says of a key pair, and of the request that spent it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from host_agent.store_name import KeyStoreName


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
class Revocation:
    """Why pairs that were valid, or about to be, are invalid."""

    why: str
    reason: Reason = Reason.REVOKED
    by: str | None = None
    """Who wants it, where that is not the operator."""

    @property
    def facts(self) -> dict[str, object]:
        """Return them for the accounts."""
        facts: dict[str, object] = {"why": self.why, **({"by": self.by} if self.by else {})}
        return facts if self.reason is Reason.REVOKED else {**facts, "reason": str(self.reason)}


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
    looked_up_at: int
    """When that was so."""
    key_store: KeyStoreName
    """Where its private key is kept."""
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
    too_old: bool
    """Whether it is too old to be taken up, or its response, which is stored, to be given."""
    is_ahead: bool
    """Whether that is not known, since it is dated by a clock that was ahead then."""
    looked_up_at: int
    """When it was that old, by the database's clock."""


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
    key_store: KeyStoreName = KeyStoreName.TOKEN


RECORDED = (
    "key_id",
    "user_id",
    "batch_id",
    "custody",
    "key_store",
    "not_after",
    "token_serial",
    "host_key_id",
)
"""What the accounts say of a new pair, and what of it never changes; older ones the first three."""


@dataclass(frozen=True)
class Arrival:
    """What there is to do about pairs while they are taken in."""

    on_added: Callable[[int], object] = lambda _: None
    """Told how many more are there, before they count."""
    received: Mapping[str, object] | None = None
    """Of a batch that the officer sent, the facts for the accounts."""
    batch_id: bytes | None = None
    """Of the import that was written down."""


QUIETLY = Arrival()
"""Nothing."""


@dataclass(frozen=True)
class WrappedKey:
    """A pair's private key as the Key Database keeps it."""

    kek_id: bytes
    """Of the key-encryption key that it is wrapped under, on the HSM."""
    wrapped: bytes


DESTRUCTION_OWED = "destruction owed"
"""No pair needs it any more, and it may still be on the HSM."""


@dataclass(frozen=True)
class BatchKey:
    """The key-encryption key of a batch on one HSM token."""

    kek_id: bytes
    token_serial: str
    batch_id: bytes
    pairs: int
    """How many private keys it still unwraps."""
    imported_at: int | None
    """None: an import is under way, or was cut off."""
    destroyed_at: int | None

    @property
    def state(self) -> str:
        """What there is to know of it, in words."""
        if self.destroyed_at is not None:
            return "destroyed"
        if self.imported_at is None:
            return "import not finished"
        return "in use" if self.pairs else DESTRUCTION_OWED


@dataclass(frozen=True)
class Count:
    """How many pairs of a user are in a state, in one custody and key store."""

    user_id: str
    state: str
    """`valid`, or the reason why they are not."""
    custody: str
    key_store: str
    """Without meaning in custody `split`."""
    pairs: int
    destruction_owed: int
    """Of how many the private key may still be on the HSM."""
