"""What the tests of tokens share: PINs, software keys to compare with, two tokens."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa, utils
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from pkcs11 import Attribute, ObjectClass

from carnet.token.onetime import is_pair_label, pair_label
from carnet.token.pair_type import PairType
from carnet.token.session import TokenSession
from carnet.token.signing import SigningPairs
from carnet.token.transport import agree_transport, host_transport_key, open_transport

PIN = "carnet-user-4711"
SO_PIN = "carnet-officer-0815"
MINTED = datetime(2026, 11, 23, 10, 15, tzinfo=UTC)
DIGEST = hashlib.sha256(b"request").digest()


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def spki_of(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def load(public_key: bytes) -> ec.EllipticCurvePublicKey:
    key = load_der_public_key(public_key)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def verify(public_key: bytes, signature: bytes, digest: bytes = DIGEST) -> None:
    assert len(signature) == 64
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    encoded = utils.encode_dss_signature(r, s)
    load(public_key).verify(encoded, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


def objects(session: TokenSession, object_class: ObjectClass) -> list[Any]:
    found = session.find(object_class, {Attribute.TOKEN: True})
    return [one for one in found if is_pair_label(one[Attribute.LABEL])]


class Pairing:
    """The traveller's and the Host's token, logged in, with one KEK between them."""

    def __init__(self, traveller: TokenSession, host: TokenSession) -> None:
        self.traveller = traveller
        self.host = host
        self.wrapping = agree_transport(traveller, host_transport_key(host))
        self.unwrapping = open_transport(host, self.wrapping.ephemeral_public_key)

    def share(self, number: int) -> bytes:
        """Mint a pair and import it; return its key id."""
        label = pair_label(MINTED, number)
        pair = self.wrapping.mint_pair(label, None)
        self.unwrapping.import_pair(pair.key_id, label, pair.public_key, pair.wrapped, None)
        return pair.key_id


def mint_signing_pair(session: TokenSession, label: str, type_: PairType) -> bytes:
    return SigningPairs(session, type_).mint(label, None)
