"""RFC 9180's own vectors through our decapsulation, the private key on a token.

The numbers are those of the RFC's machine-readable set: appendix A.3.1 and, with the
AEAD of suite 1, the entry of mode 0, KEM 0x0010, KDF 0x0001, AEAD 0x0002.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pkcs11 import Attribute, KeyType, ObjectClass

from carnet.token import keys
from carnet.token.onetime import OneTimeKeys, pair_label
from carnet.token.session import TokenSession
from carnet.wire import hpke
from carnet.wire.suites import P256
from tests.token.helpers import MINTED, spki_of

INFO = b"Ode on a Grecian Urn"
PLAINTEXT = b"Beauty is truth, truth beauty"
AAD = b"Count-0"


@dataclass(frozen=True)
class Vector:
    secret: str
    enc: str
    shared_secret: str


A31 = Vector(
    "f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2",
    "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac"
    "98536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4",
    "c0d26aeab536609a572b07695d933b589dcf363ff9d93c93adea537aeabb8cb8",
)
AES256 = Vector(
    "317f915db7bc629c48fe765587897e01e282d3e8445f79f27f65d031a88082b2",
    "04c06b4f6bebc7bb495cb797ab753f911aff80aefb86fd8b6fcc35525f3ab5f03"
    "e0b21bd31a86c6048af3cb2d98e0d3bf01da5cc4c39ff5370d331a4f1f7d5a4e0",
    "48893fecd82f7c3456af6a42d8f56325d21e08c10fa81299986aaff54cde7b49",
)
KEY = bytes.fromhex("ee16802a936d5f544771131900ee6973d0551de9e852ece2ef34bf0d5f9e1d1d")
BASE_NONCE = bytes.fromhex("9bc50980832a7b4b58c40161")
CIPHERTEXT = bytes.fromhex(
    "58c61a45059d0c5704560e9d88b564a8b63f1364b8d1fcb3c4c6ddc1d291742465e902cd216f8908da49f8f96f"
)

Agreeing = tuple[ec.EllipticCurvePublicKey, hpke.Agree]


def private_key(vector: Vector) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int(vector.secret, 16), ec.SECP256R1())


@pytest.fixture
def put(session: TokenSession) -> Callable[[Vector], Agreeing]:
    """Put a vector's key pair on the token; return its public key and the token's ECDH."""

    def put(vector: Vector) -> Agreeing:
        public_key = private_key(vector).public_key()
        key_id = keys.key_id(spki_of(public_key))
        label = pair_label(MINTED, 1)
        session.raw.create_object(
            {
                Attribute.CLASS: ObjectClass.PRIVATE_KEY,
                Attribute.KEY_TYPE: KeyType.EC,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: True,
                Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: False,
                Attribute.DERIVE: True,
                Attribute.ID: key_id,
                Attribute.LABEL: label,
                Attribute.EC_PARAMS: keys.P256.parameters,
                Attribute.VALUE: bytes.fromhex(vector.secret),
            }
        )
        keys.store_public_key(session, spki_of(public_key), label, None)
        return public_key, OneTimeKeys(session).private_key(key_id).agree

    return put


@pytest.mark.parametrize("vector", [A31, AES256], ids=["A.3.1", "AES-256-GCM"])
def test_the_token_decapsulates(put: Callable[[Vector], Agreeing], vector: Vector) -> None:
    shared = hpke._decapsulate(bytes.fromhex(vector.enc), *put(vector), P256.kem)
    assert shared.hex() == vector.shared_secret


def test_key_and_nonce_are_the_vectors(put: Callable[[Vector], Agreeing]) -> None:
    shared = hpke._decapsulate(bytes.fromhex(AES256.enc), *put(AES256), P256.kem)
    key, nonce = hpke._key_schedule(shared, INFO, P256.kem)
    assert (key, nonce) == (KEY, BASE_NONCE)
    assert AESGCM(key).decrypt(nonce, CIPHERTEXT, AAD) == PLAINTEXT


def test_what_the_vector_sealed_opens(put: Callable[[Vector], Agreeing]) -> None:
    """The vector's first encryption carries data that ours never does: here it has none."""
    sealed = bytes.fromhex(AES256.enc) + AESGCM(KEY).encrypt(BASE_NONCE, PLAINTEXT, b"")
    assert hpke.open_sealed(sealed, *put(AES256), INFO, P256.kem) == PLAINTEXT
    assert P256.kem.seals.decrypt(sealed, private_key(AES256), INFO) == PLAINTEXT
