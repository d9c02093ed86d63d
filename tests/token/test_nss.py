"""Suite 2 on a token whose OAEP has SHA-256: NSS's softoken, all of it in memory.

SoftHSM2's OAEP has no such hash. Softoken keeps no pairs for us, since it lets private
keys out; its keys of one session do here what those of a hardware token would.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from pkcs11 import MechanismFlag

from carnet.errors import TokenCannotError
from carnet.token import cryptoki, keys
from carnet.token.module import Token
from carnet.token.pair_type import PairType
from carnet.token.rsa_type import OAEP_HASHES, RsaType
from carnet.token.session import TokenSession
from carnet.wire import hpke, split
from carnet.wire.envelope import open_request, parse_envelope, seal_request
from carnet.wire.fault import Fault, WireError
from carnet.wire.keys import load_public_key
from carnet.wire.suites import P256, P384, RSA, RSA_SHA1, AnySuite
from tests.unit.examples import SoftwareKey, make_request

_MODULE = "libsoftokn3.so"
_IN_MEMORY = b"configdir='' certPrefix='' keyPrefix='' secmod='' flags=readOnly,noCertDB,noModDB"
_CRYPTO_SLOT = 1


class Softoken(cryptoki.Cryptoki):
    """NSS takes its configuration in C_Initialize's reserved field."""

    def initialize(self) -> None:
        text = ctypes.create_string_buffer(_IN_MEMORY)
        arguments = cryptoki._InitializeArguments(
            flags=cryptoki._OS_LOCKING_OK, reserved=ctypes.cast(text, ctypes.c_void_p)
        )
        cryptoki._check("C_Initialize", self._functions.C_Initialize(ctypes.byref(arguments)))


@dataclass(frozen=True)
class SessionKey:
    """A private key on the token, used as one-time pairs are."""

    type_: PairType
    private: Any
    public_key: bytes

    def sign(self, digest: bytes) -> bytes:
        return self.type_.sign(self.private, digest)

    def agree(self, point: bytes) -> bytes:
        assert isinstance(self.type_, keys.EcType)
        return self.type_.agree(self.private, point)

    def decrypt(self, ciphertext: bytes, oaep: hashes.HashAlgorithm) -> bytes | None:
        assert isinstance(self.type_, RsaType)
        return self.type_.decrypt(self.private, ciphertext, oaep)


@pytest.fixture(scope="module")
def softoken() -> Iterator[TokenSession]:
    library = Softoken(_MODULE)
    (slot,) = [each for each in library.get_slots() if each.slot_id == _CRYPTO_SLOT]
    with slot.get_token().open(rw=True) as raw:
        token = Token(None, slot)  # type: ignore[arg-type]  # no module of this package's
        yield TokenSession(token, raw, logged_in=False)
    library.finalize()


def made(session: TokenSession, name: str) -> SessionKey:
    type_ = keys.TYPES[name]
    public, private = keys.generate_session_pair(session, type_, use=type_.use, extractable=False)
    read = keys.read_public_key(public)
    assert read is not None
    assert read[0] is type_
    return SessionKey(type_, private, read[1])


@pytest.mark.parametrize(
    ("name", "suite"),
    [("ec-p256", P256), ("ec-p384", P384), ("rsa-2048", RSA), ("rsa-3072", RSA),
     ("rsa-2048", RSA_SHA1)],
)  # fmt: skip
def test_a_request_is_signed_and_opened(softoken: TokenSession, name: str, suite: AnySuite) -> None:
    key = made(softoken, name)
    data = seal_request(make_request(), key.public_key, suite, key)
    assert open_request(parse_envelope(data), key.public_key, key).request == make_request()


@pytest.mark.parametrize(("name", "suite"), [("ec-p256", P256), ("ec-p384", P384),
                                            ("rsa-2048", RSA)])  # fmt: skip
def test_in_custody_split_a_key_signs_and_does_nothing_else(
    softoken: TokenSession, name: str, suite: AnySuite
) -> None:
    type_ = keys.TYPES[name]
    public, private = keys.generate_session_pair(
        softoken, type_, use=MechanismFlag.SIGN, extractable=False
    )
    read = keys.read_public_key(public)
    assert read is not None
    keys.prove_signing(private, read[1])
    key, host = SessionKey(type_, private, read[1]), SoftwareKey(split.host_suite(suite))
    sealed = split.seal_request(make_request(), read[1], suite, key.sign, host.public_key)
    asked = parse_envelope(sealed.data)
    opened = split.open_request(asked, read[1], host.public_key, host.agree)
    assert opened.request == make_request()
    if isinstance(type_, keys.EcType):
        with pytest.raises(TokenCannotError):
            key.agree(hpke.encode_point(host.key.public_key()))
    else:
        with pytest.raises(TokenCannotError):
            key.decrypt(bytes(256), OAEP_HASHES["sha-256"])


def test_the_strongest_hash_is_found(softoken: TokenSession) -> None:
    assert isinstance(keys.RSA[0], RsaType)
    assert keys.find_oaep(softoken, keys.RSA[0]) == "sha-256"


def test_a_pair_serves_for_either_hash(softoken: TokenSession) -> None:
    key = made(softoken, "rsa-2048")
    _, public_key = keys.type_and_key(key.public_key)
    for oaep in OAEP_HASHES.values():
        assert key.type_.prove(key.private, public_key, oaep)


def test_what_does_not_decrypt_says_no_more_than_a_tag_that_does_not_hold(
    softoken: TokenSession,
) -> None:
    key = made(softoken, "rsa-2048")
    public_key = load_public_key(key.public_key, RSA)
    assert isinstance(public_key, rsa.RSAPublicKey)
    right = RSA.seal(b"word", public_key, b"info")
    assert RSA.open_sealed(right, public_key, key, b"info") == b"word"
    said = set()
    for wrong in (
        right[:-1] + bytes([right[-1] ^ 1]),
        right[:255] + bytes([right[255] ^ 1]) + right[256:],
        bytes(255) + b"\x02" + right[256:],
        RSA_SHA1.seal(b"word", public_key, b"info"),
    ):
        with pytest.raises(WireError) as caught:
            RSA.open_sealed(wrong, public_key, key, b"info")
        said.add((caught.value.fault, str(caught.value)))
    assert said == {(Fault.SEAL, "seal: the seal does not open")}
