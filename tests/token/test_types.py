"""Every type of key pair on real SoftHSM2 tokens: made, carried to the other, used, refused."""

import secrets
from dataclasses import dataclass, replace

import pkcs11
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key
from msgspec import structs
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from carnet.errors import TokenCannotError, TokenError
from carnet.token import keys
from carnet.token.onetime import OneTimeKeys, OneTimePrivateKey, pair_label
from carnet.token.rsa_type import OAEP_HASHES, RsaType
from carnet.token.session import TokenSession
from carnet.token.transport import MintedPair
from carnet.wire.envelope import open_request, parse_envelope, seal_request
from carnet.wire.fault import Fault, WireError
from carnet.wire.keys import load_public_key
from carnet.wire.suites import P256, P384, RSA, RSA_SHA1, AnySuite
from tests.token.helpers import MINTED, Pairing, objects, point_of, spki_of
from tests.unit.examples import make_request

SHA1, SHA256 = OAEP_HASHES["sha-1"], OAEP_HASHES["sha-256"]
LABEL = pair_label(MINTED, 1)


@dataclass(frozen=True)
class Kind:
    """A type of pairs, and what is used with it here: SoftHSM2's OAEP has SHA-1 only."""

    name: str
    suite: AnySuite

    @property
    def oaep(self) -> hashes.HashAlgorithm | None:
        return SHA1 if self.suite is RSA_SHA1 else None


KINDS = {
    kind.name: kind
    for kind in (
        Kind("ec-p256", P256),
        Kind("ec-p384", P384),
        Kind("rsa-2048", RSA_SHA1),
        Kind("rsa-3072", RSA_SHA1),
        Kind("rsa-4096", RSA_SHA1),
    )
}
RSA_2048 = KINDS["rsa-2048"]
QUICK = [KINDS["ec-p256"], KINDS["ec-p384"], RSA_2048]


def minted(pairing: Pairing, kind: Kind, number: int = 1) -> MintedPair:
    label = pair_label(MINTED, number)
    return pairing.wrapping.mint_pair(label, None, keys.TYPES[kind.name], kind.oaep)


def taken_in(pairing: Pairing, kind: Kind, pair: MintedPair) -> bool:
    return pairing.unwrapping.import_pair(
        pair.key_id, LABEL, pair.public_key, pair.wrapped, None, kind.oaep
    )


def shared(pairing: Pairing, kind: Kind) -> tuple[OneTimePrivateKey, OneTimePrivateKey]:
    """Mint a pair and import it; return its private key on the one token and on the other."""
    pair = minted(pairing, kind)
    assert taken_in(pairing, kind, pair)
    both = [OneTimeKeys(each).private_key(pair.key_id) for each in pairing_of(pairing)]
    assert both[0].pair == both[1].pair
    return both[0], both[1]


def pairing_of(pairing: Pairing) -> tuple[TokenSession, TokenSession]:
    return pairing.traveller, pairing.host


def kinds(chosen: list[Kind]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", chosen, ids=lambda kind: kind.name)


@kinds(list(KINDS.values()))
def test_what_one_token_seals_and_signs_the_other_opens(pairing: Pairing, kind: Kind) -> None:
    traveller, host = shared(pairing, kind)
    public_key = traveller.pair.public_key
    assert traveller.pair.key_type == kind.name
    data = seal_request(make_request(), public_key, kind.suite, traveller)
    assert open_request(parse_envelope(data), public_key, host).request == make_request()


def sizes(kind: Kind) -> int:
    return {"ec-p256": 64, "ec-p384": 96}.get(kind.name) or int(kind.name.removeprefix("rsa-")) // 8


@kinds(QUICK)
def test_both_tokens_sign_what_the_library_verifies(pairing: Pairing, kind: Kind) -> None:
    for private in shared(pairing, kind):
        digest = kind.suite.digest(b"request")
        signature = private.sign(digest)
        assert len(signature) == sizes(kind)
        public_key = load_public_key(private.pair.public_key, kind.suite)
        assert kind.suite.verify(signature, digest, public_key)
        assert not kind.suite.verify(signature, kind.suite.digest(b"another"), public_key)


def test_p384_agrees_as_the_library_does(pairing: Pairing) -> None:
    """RFC 9180 has no vectors for P-384: the library's own sealing is what we compare with."""
    for private in shared(pairing, KINDS["ec-p384"]):
        public_key = load_public_key(private.pair.public_key, P384)
        sealed = P384.kem.seals.encrypt(b"word", public_key, b"info")
        assert P384.open_sealed(sealed, public_key, private, b"info") == b"word"
        with pytest.raises(WireError):
            P384.open_sealed(sealed, public_key, private, b"another")
        peer = ec.generate_private_key(ec.SECP384R1())
        expected = peer.exchange(ec.ECDH(), public_key)
        assert private.agree(point_of(peer.public_key())) == expected


def test_p384_agrees_keeping_leading_zeros(pairing: Pairing) -> None:
    private, _ = shared(pairing, KINDS["ec-p384"])
    ours = load_public_key(private.pair.public_key, P384)
    while True:
        peer = ec.generate_private_key(ec.SECP384R1())
        expected = peer.exchange(ec.ECDH(), ours)
        if expected[0] == 0:
            break
    assert private.agree(point_of(peer.public_key())) == expected


def test_a_point_of_p256_never_reaches_a_p384_key(pairing: Pairing) -> None:
    private, _ = shared(pairing, KINDS["ec-p384"])
    for point in (
        point_of(ec.derive_private_key(1, ec.SECP256R1()).public_key()),
        b"\x04" + bytes(95) + b"\x01",
        b"",
    ):
        with pytest.raises(ValueError, match=r"point|EC key"):
            private.agree(point)


# RSA


def encrypt(public_key: bytes, data: bytes, oaep: hashes.HashAlgorithm = SHA1) -> bytes:
    key = load_der_public_key(public_key)
    assert isinstance(key, rsa.RSAPublicKey)
    return key.encrypt(data, padding.OAEP(padding.MGF1(oaep), oaep, None))


def test_rsa_decrypts_or_says_no_more_than_no(pairing: Pairing) -> None:
    for private in shared(pairing, RSA_2048):
        public_key = private.pair.public_key
        right = encrypt(public_key, bytes(32))
        assert private.decrypt(right, SHA1) == bytes(32)
        for wrong in (
            bytes(256),
            bytes(255) + b"\x01",
            b"\xff" * 256,
            right[:-1] + bytes([right[-1] ^ 1]),
            right[:-1],
            right + b"\0",
            b"",
            encrypt(public_key, bytes(32), SHA256),
        ):
            assert private.decrypt(wrong, SHA1) is None
        assert private.decrypt(right, SHA1) == bytes(32)


def test_a_token_that_is_gone_is_no_ciphertext_that_does_not_open(pairing: Pairing) -> None:
    private, _ = shared(pairing, RSA_2048)
    (handle,) = pairing.traveller.find(ObjectClass.PRIVATE_KEY, {Attribute.KEY_TYPE: KeyType.RSA})
    right = encrypt(private.pair.public_key, bytes(32))
    handle.destroy()
    with pytest.raises(TokenError):
        private.decrypt(right, SHA1)


def test_the_signature_is_pss_with_a_salt_of_32_bytes(pairing: Pairing) -> None:
    private, _ = shared(pairing, RSA_2048)
    key = load_der_public_key(private.pair.public_key)
    assert isinstance(key, rsa.RSAPublicKey)
    digest = secrets.token_bytes(32)
    one, other = private.sign(digest), private.sign(digest)
    assert one != other
    for signature in (one, other):
        scheme = padding.PSS(padding.MGF1(SHA256), 32)
        key.verify(signature, digest, scheme, utils.Prehashed(SHA256))


def test_a_pair_does_what_its_type_does(pairing: Pairing) -> None:
    pair_of_rsa, _ = shared(pairing, RSA_2048)
    with pytest.raises(TypeError, match="no point"):
        pair_of_rsa.agree(point_of(ec.derive_private_key(1, ec.SECP256R1()).public_key()))
    curved = minted(pairing, KINDS["ec-p256"], 2)
    with pytest.raises(TypeError, match="does not decrypt"):
        OneTimeKeys(pairing.traveller).decrypt(curved.key_id, bytes(256), SHA1)


@kinds([KINDS["ec-p384"], RSA_2048])
@pytest.mark.parametrize("side", ["traveller", "host"])
def test_no_token_lets_the_key_out(pairing: Pairing, kind: Kind, side: str) -> None:
    private, _ = shared(pairing, kind)
    session: TokenSession = getattr(pairing, side)
    (handle,) = session.find(ObjectClass.PRIVATE_KEY, {Attribute.ID: private.pair.key_id})
    assert handle[Attribute.SENSITIVE]
    assert not handle[Attribute.EXTRACTABLE]
    kek = session.raw.generate_key(KeyType.AES, 256, capabilities=MechanismFlag.WRAP, template={})
    assert isinstance(kek, pkcs11.WrapMixin)
    with pytest.raises(pkcs11.KeyUnextractable):
        kek.wrap_key(handle, mechanism=Mechanism.AES_KEY_WRAP_PAD)
    for attribute in (Attribute.PRIVATE_EXPONENT, Attribute.PRIME_1, Attribute.VALUE):
        with pytest.raises(pkcs11.PKCS11Error):
            handle[attribute]


@kinds(QUICK)
def test_a_burned_pair_is_gone_from_both_tokens(pairing: Pairing, kind: Kind) -> None:
    private, _ = shared(pairing, kind)
    for session in pairing_of(pairing):
        assert OneTimeKeys(session).destroy(private.pair.key_id)
        for object_class in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
            assert not objects(session, object_class)


def test_pairs_of_every_type_stand_side_by_side(pairing: Pairing) -> None:
    made = [minted(pairing, kind, number) for number, kind in enumerate(QUICK, 1)]
    listed = OneTimeKeys(pairing.traveller).pairs()
    assert [pair.key_id for pair in listed] == [pair.key_id for pair in made]
    assert [pair.key_type for pair in listed] == [kind.name for kind in QUICK]


# What a token cannot do


def test_the_strongest_hash_of_softhsm2s_oaep_is_sha1(session: TokenSession) -> None:
    assert isinstance(keys.RSA[0], RsaType)
    assert keys.find_oaep(session, keys.RSA[0]) == "sha-1"
    for object_class in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
        assert not session.find(object_class, {})


def test_a_pair_that_the_token_cannot_decrypt_for_is_not_minted(pairing: Pairing) -> None:
    with pytest.raises(TokenCannotError, match="does not decrypt RSAES-OAEP with sha256"):
        pairing.wrapping.mint_pair(LABEL, None, keys.TYPES["rsa-2048"], SHA256)
    for object_class in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
        assert not objects(pairing.traveller, object_class)


@pytest.mark.parametrize("name", ["ec-p384", "rsa-2048"])
def test_a_pair_is_not_tried_for_what_it_is_not(pairing: Pairing, name: str) -> None:
    wrong = {"ec-p384": SHA1, "rsa-2048": None}
    with pytest.raises(ValueError, match="OAEP"):
        pairing.wrapping.mint_pair(LABEL, None, keys.TYPES[name], wrong[name])
    assert not objects(pairing.traveller, ObjectClass.PRIVATE_KEY)


def test_a_pair_that_the_hosts_token_cannot_decrypt_for_is_not_taken_in(pairing: Pairing) -> None:
    pair = minted(pairing, RSA_2048)
    for take in (
        lambda: pairing.unwrapping.try_pair(pair.key_id, pair.public_key, pair.wrapped, SHA256),
        lambda: pairing.unwrapping.import_pair(
            pair.key_id, LABEL, pair.public_key, pair.wrapped, None, SHA256
        ),
    ):
        with pytest.raises(TokenCannotError, match="does not decrypt RSAES-OAEP with sha256"):
            take()
    assert not pairing.host.find(ObjectClass.PRIVATE_KEY, {Attribute.KEY_TYPE: KeyType.RSA})


@kinds(QUICK)
def test_trying_a_pair_leaves_nothing_behind(pairing: Pairing, kind: Kind) -> None:
    pair = minted(pairing, kind)
    before = len(pairing.host.find(ObjectClass.PRIVATE_KEY, {}))
    pairing.unwrapping.try_pair(pair.key_id, pair.public_key, pair.wrapped, kind.oaep)
    assert len(pairing.host.find(ObjectClass.PRIVATE_KEY, {})) == before
    assert taken_in(pairing, kind, pair)


@kinds([KINDS["ec-p384"], RSA_2048])
def test_another_pairs_private_key_is_refused(pairing: Pairing, kind: Kind) -> None:
    pair, other = minted(pairing, kind), minted(pairing, kind, 2)
    for key in (replace(pair, wrapped=other.wrapped), replace(pair, wrapped=bytes(80))):
        with pytest.raises(TokenError, match=r"not the public key's|does not unwrap"):
            taken_in(pairing, kind, key)
    assert not objects(pairing.host, ObjectClass.PRIVATE_KEY)


def test_a_private_key_of_another_type_is_refused(pairing: Pairing) -> None:
    curved, pair = minted(pairing, KINDS["ec-p256"]), minted(pairing, RSA_2048, 2)
    with pytest.raises(TokenError):
        taken_in(pairing, RSA_2048, replace(pair, wrapped=curved.wrapped))
    with pytest.raises(TokenError):
        taken_in(pairing, KINDS["ec-p256"], replace(curved, wrapped=pair.wrapped))
    assert not objects(pairing.host, ObjectClass.PRIVATE_KEY)


@pytest.mark.parametrize(("bits", "exponent"), [(1024, 65537), (2048, 3)])
def test_rsa_keys_of_others_are_left_out(session: TokenSession, bits: int, exponent: int) -> None:
    key = rsa.generate_private_key(exponent, bits).public_key()
    numbers = key.public_numbers()
    public = session.raw.create_object(
        {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            Attribute.KEY_TYPE: KeyType.RSA,
            Attribute.TOKEN: True,
            Attribute.ID: keys.key_id(spki_of(key)),
            Attribute.LABEL: LABEL,
            Attribute.MODULUS: numbers.n.to_bytes(bits // 8, "big"),
            Attribute.PUBLIC_EXPONENT: numbers.e.to_bytes(3, "big"),
        }
    )
    assert keys.read_public_key(public) is None
    with pytest.raises(ValueError, match="no public key of a type"):
        keys.type_and_key(spki_of(key))
    assert OneTimeKeys(session).pairs() == []


def test_a_request_sealed_for_the_other_hash_does_not_open(pairing: Pairing) -> None:
    """Whoever moves a message between suites 2 and 4 gets the answer of any bad seal."""
    traveller, host = shared(pairing, RSA_2048)
    public_key = traveller.pair.public_key
    data = seal_request(make_request(), public_key, RSA, traveller)
    envelope = parse_envelope(data)
    assert envelope.suite is RSA
    moved = structs.replace(envelope, suite=RSA_SHA1)
    with pytest.raises(WireError) as caught:
        open_request(moved, public_key, host)
    assert caught.value.fault is Fault.SEAL
