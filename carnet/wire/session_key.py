"""The Session Key: from Target to the Client, past Host.

Target seals 32 fresh bytes to the Client's ephemeral ML-KEM-768 + X25519 key with
HPKE; Host carries them without being able to read them. Both ends derive the IKE
pre-shared keys and the post-quantum pre-shared keys (RFC 8784) from them, under
labels of their own, so that none can stand for another.
"""

import secrets
from dataclasses import dataclass, field

import msgspec
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from carnet.wire import cbor
from carnet.wire.fault import Fault, WireError

_HYBRID = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_MLKEM_PUBLIC = 1184
_MLKEM_SEED = 64
_X25519 = 32
_ENC = 1120
_TAG = 16

SESSION_KEY_LENGTH = 32
EPHEMERAL_KEY_LENGTH = _MLKEM_PUBLIC + _X25519
EPHEMERAL_SECRET_LENGTH = _MLKEM_SEED + _X25519
SEALED_SESSION_KEY_LENGTH = _ENC + SESSION_KEY_LENGTH + _TAG
LEAST_SEALED_LENGTH = _ENC + _TAG
"""Of whatever is sealed to an ephemeral key."""


class SessionBinding(msgspec.Struct, frozen=True, kw_only=True):
    """What a session key is good for: one request of one user to one Target."""

    request_id: bytes
    user_id: str
    target: str
    objective_id: int

    def info(self) -> bytes:
        """Return HPKE's `info` for the sealing."""
        return cbor.encode(
            ["carnet", 1, "session-key", self.request_id, self.user_id, self.target,
             self.objective_id]
        )  # fmt: skip


class EphemeralKey:
    """The Client's key pair of one request; its secret half never shows in repr()."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != EPHEMERAL_SECRET_LENGTH:
            raise ValueError(f"an ephemeral secret has {EPHEMERAL_SECRET_LENGTH} bytes")
        self._secret = secret
        self._mlkem = mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:_MLKEM_SEED])
        self._x25519 = x25519.X25519PrivateKey.from_private_bytes(secret[_MLKEM_SEED:])

    @classmethod
    def generate(cls) -> "EphemeralKey":
        """Return a fresh key pair."""
        return cls(secrets.token_bytes(EPHEMERAL_SECRET_LENGTH))

    @property
    def secret(self) -> bytes:
        """The secret half: the seed of ML-KEM ‖ the X25519 scalar."""
        return self._secret

    @property
    def public(self) -> bytes:
        """The public half, as Request Info carries it: ML-KEM-768 ‖ X25519."""
        return (
            self._mlkem.public_key().public_bytes_raw()
            + self._x25519.public_key().public_bytes_raw()
        )

    def open(self, sealed: bytes, binding: SessionBinding) -> "SessionSecrets":
        """Return the secrets that Target sealed to this key; WireError (SEAL) otherwise."""
        session_key = self.open_sealed(sealed, binding.info())
        return SessionSecrets.derive(session_key, binding)

    def open_sealed(self, sealed: bytes, info: bytes) -> bytes:
        """Return what seal_to_ephemeral() sealed for this `info`; WireError (SEAL) otherwise."""
        private_key = MLKEM768X25519PrivateKey(self._mlkem, self._x25519)
        try:
            return _HYBRID.decrypt(sealed, private_key, info)
        except (InvalidTag, ValueError):
            raise WireError(Fault.SEAL, "the seal to the ephemeral key does not open") from None


@dataclass(frozen=True)
class SessionSecrets:
    """The keys of one session; none shows in repr()."""

    psk: bytes = field(repr=False)
    """IKE pre-shared key, 32 bytes."""
    ppk: bytes = field(repr=False)
    """Post-quantum pre-shared key (RFC 8784), 32 bytes."""
    ah_psk: bytes = field(repr=False)
    """As `psk`, for the second connection of AH and ESP, which negotiates AH."""
    ah_ppk: bytes = field(repr=False)

    @classmethod
    def derive(cls, session_key: bytes, binding: SessionBinding) -> "SessionSecrets":
        """Derive all keys from the session key (HKDF, RFC 5869), each under its own label."""
        return cls(
            psk=_derive(session_key, "ike-psk", binding),
            ppk=_derive(session_key, "ppk", binding),
            ah_psk=_derive(session_key, "ike-psk-ah", binding),
            ah_ppk=_derive(session_key, "ppk-ah", binding),
        )


def make_session_key(ephemeral_key: bytes, binding: SessionBinding) -> tuple[bytes, SessionSecrets]:
    """Step 5: return a fresh session key, sealed to the Client's key, and its secrets.

    Raises WireError (FIELD) if the Client's key is none.
    """
    session_key = secrets.token_bytes(SESSION_KEY_LENGTH)
    sealed = seal_to_ephemeral(session_key, ephemeral_key, binding.info())
    return sealed, SessionSecrets.derive(session_key, binding)


def seal_to_ephemeral(plaintext: bytes, ephemeral_key: bytes, info: bytes) -> bytes:
    """Return enc ‖ ciphertext, for the Client's ephemeral key and this `info` alone.

    Raises WireError (FIELD) if the Client's key is none.
    """
    try:
        public_key = MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(ephemeral_key[:_MLKEM_PUBLIC]),
            x25519.X25519PublicKey.from_public_bytes(ephemeral_key[_MLKEM_PUBLIC:]),
        )
        return _HYBRID.encrypt(plaintext, public_key, info)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise WireError(Fault.FIELD, "the ephemeral key is none") from error


def _derive(session_key: bytes, label: str, binding: SessionBinding) -> bytes:
    info = cbor.encode(["carnet", 1, label, binding.request_id])
    return HKDF(hashes.SHA256(), SESSION_KEY_LENGTH, None, info).derive(session_key)
