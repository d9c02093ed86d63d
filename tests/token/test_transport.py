import hashlib
from dataclasses import replace
from typing import Any

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass

from carnet.errors import TokenError
from carnet.token import keys
from carnet.token.fitness import ways_out_of
from carnet.token.onetime import OneTimeKeys, pair_label
from carnet.token.session import TokenSession, open_public_session
from carnet.token.transport import (
    MintedPair,
    agree_transport,
    host_transport_key,
    open_transport,
)
from tests.token.helpers import DIGEST, MINTED, Pairing, load, objects, point_of, spki_of, verify

LABEL = pair_label(MINTED, 1)


def private_of(session: TokenSession, key_id: bytes) -> Any:
    (private,) = session.find(ObjectClass.PRIVATE_KEY, {Attribute.ID: key_id})
    return private


def take_in(pairing: Pairing, pair: MintedPair) -> bool:
    return pairing.unwrapping.import_pair(pair.key_id, LABEL, pair.public_key, pair.wrapped, None)


def nothing_taken_in(pairing: Pairing) -> bool:
    classes = (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
    return not any(objects(pairing.host, object_class) for object_class in classes)


def test_both_tokens_hold_the_same_key(pairing: Pairing) -> None:
    key_id = pairing.share(1)
    traveller, host = OneTimeKeys(pairing.traveller), OneTimeKeys(pairing.host)
    assert traveller.pairs() == host.pairs()
    (pair,) = traveller.pairs()
    verify(pair.public_key, traveller.sign(key_id, DIGEST))
    verify(pair.public_key, host.sign(key_id, DIGEST))
    peer = ec.generate_private_key(ec.SECP256R1())
    expected = peer.exchange(ec.ECDH(), load(pair.public_key))
    point = point_of(peer.public_key())
    assert traveller.agree(key_id, point) == host.agree(key_id, point) == expected


@pytest.mark.parametrize("side", ["traveller", "host"])
def test_no_token_lets_the_key_out(pairing: Pairing, side: str) -> None:
    key_id = pairing.share(1)
    session: TokenSession = getattr(pairing, side)
    private = private_of(session, key_id)
    kek = session.raw.generate_key(KeyType.AES, 256, capabilities=MechanismFlag.WRAP, template={})
    assert isinstance(kek, pkcs11.WrapMixin)
    with pytest.raises(pkcs11.KeyUnextractable):
        kek.wrap_key(private, mechanism=Mechanism.AES_KEY_WRAP_PAD)
    with pytest.raises(pkcs11.AttributeSensitive):
        private[Attribute.VALUE]
    for attribute, value in ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False)):
        with pytest.raises(pkcs11.AttributeReadOnly):
            private[attribute] = value
        with pytest.raises(pkcs11.PKCS11Error):
            private.copy({attribute: value})
    assert ways_out_of(session, private) == []


def test_the_transport_leaves_only_the_pair_behind(pairing: Pairing) -> None:
    key_id = pairing.share(1)
    for session in (pairing.traveller, pairing.host):
        found = session.find(ObjectClass.PRIVATE_KEY, {})
        others = [p for p in found if p[Attribute.LABEL] != "carnet transport"]
        assert [private[Attribute.ID] for private in others] == [key_id]
        assert not session.find(ObjectClass.SECRET_KEY, {Attribute.TOKEN: True})
    pairing.wrapping.close()
    pairing.unwrapping.close()
    for session in (pairing.traveller, pairing.host):
        assert not session.find(ObjectClass.SECRET_KEY, {})


def test_the_kek_stays_on_the_token(pairing: Pairing) -> None:
    for session in (pairing.traveller, pairing.host):
        (kek,) = session.find(ObjectClass.SECRET_KEY, {})
        assert kek[Attribute.SENSITIVE]
        assert not kek[Attribute.EXTRACTABLE]
        assert not kek[Attribute.ENCRYPT]
        assert not kek[Attribute.DECRYPT]
        with pytest.raises(pkcs11.AttributeSensitive):
            kek[Attribute.VALUE]


def test_the_transport_key_is_made_once_and_can_only_agree(pairing: Pairing) -> None:
    public_key = host_transport_key(pairing.host)
    assert host_transport_key(pairing.host) == public_key
    private = private_of(pairing.host, keys.key_id(public_key))
    assert private[Attribute.DERIVE]
    assert private[Attribute.TOKEN]
    for forbidden in (Attribute.SIGN, Attribute.EXTRACTABLE):
        assert not private[forbidden]


def test_a_transport_key_planted_without_pin_is_not_believed(pairing: Pairing) -> None:
    right = host_transport_key(pairing.host)
    thief = spki_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    for public in pairing.host.find(ObjectClass.PUBLIC_KEY, {Attribute.ID: keys.key_id(right)}):
        public.destroy()
    with open_public_session(pairing.host.token, writable=True) as without_pin:
        planted = keys.store_public_key(without_pin, thief, "carnet transport", None)
        planted[Attribute.ID] = keys.key_id(right)
    with pytest.raises(TokenError, match=r"public half of .carnet transport. is gone"):
        host_transport_key(pairing.host)
    keys.store_public_key(pairing.host, right, "carnet transport", None)
    assert host_transport_key(pairing.host) == right


def test_a_second_import_changes_nothing(pairing: Pairing) -> None:
    pair = pairing.wrapping.mint_pair(LABEL, None)
    assert take_in(pairing, pair)
    assert not take_in(pairing, pair)
    again = open_transport(pairing.host, pairing.wrapping.ephemeral_public_key)
    assert not again.import_pair(pair.key_id, LABEL, pair.public_key, pair.wrapped, None)
    assert len(objects(pairing.host, ObjectClass.PRIVATE_KEY)) == 1
    assert len(objects(pairing.host, ObjectClass.PUBLIC_KEY)) == 1


def test_an_import_that_was_cut_off_is_done_anew(pairing: Pairing) -> None:
    pair = pairing.wrapping.mint_pair(LABEL, None)
    take_in(pairing, pair)
    objects(pairing.host, ObjectClass.PUBLIC_KEY)[0].destroy()
    again = open_transport(pairing.host, pairing.wrapping.ephemeral_public_key)
    assert again.import_pair(pair.key_id, LABEL, pair.public_key, pair.wrapped, None)
    assert len(objects(pairing.host, ObjectClass.PRIVATE_KEY)) == 1
    verify(pair.public_key, OneTimeKeys(pairing.host).sign(pair.key_id, DIGEST))


@pytest.mark.parametrize("position", [0, 40, 79])
def test_a_forged_private_key_is_refused(pairing: Pairing, position: int) -> None:
    pair = pairing.wrapping.mint_pair(LABEL, None)
    forged = bytearray(pair.wrapped)
    forged[position] ^= 1
    with pytest.raises(TokenError, match="does not unwrap"):
        take_in(pairing, replace(pair, wrapped=bytes(forged)))
    assert nothing_taken_in(pairing)


@pytest.mark.parametrize("wrapped", [b"", bytes(80), bytes(81)], ids=len)
def test_what_was_never_wrapped_is_refused(pairing: Pairing, wrapped: bytes) -> None:
    pair = pairing.wrapping.mint_pair(LABEL, None)
    with pytest.raises(TokenError, match="does not unwrap"):
        take_in(pairing, replace(pair, wrapped=wrapped))
    assert nothing_taken_in(pairing)


def test_another_pairs_private_key_is_refused(pairing: Pairing) -> None:
    pair = pairing.wrapping.mint_pair(LABEL, None)
    other = pairing.wrapping.mint_pair(pair_label(MINTED, 2), None)
    with pytest.raises(TokenError, match="private key is not the public key's"):
        take_in(pairing, replace(pair, wrapped=other.wrapped))
    assert nothing_taken_in(pairing)


def test_another_pairs_public_key_is_refused(pairing: Pairing) -> None:
    pair = pairing.wrapping.mint_pair(LABEL, None)
    other = pairing.wrapping.mint_pair(pair_label(MINTED, 2), None)
    with pytest.raises(TokenError, match="has another pair's public key"):
        take_in(pairing, replace(pair, public_key=other.public_key))
    no_key = b"no public key"
    with pytest.raises(TokenError, match="has no valid public key"):
        take_in(
            pairing,
            replace(pair, key_id=hashlib.sha256(no_key).digest()[:16], public_key=no_key),
        )
    assert nothing_taken_in(pairing)


def test_a_batch_for_another_host_does_not_open(pairing: Pairing) -> None:
    elsewhere = spki_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    wrapping = agree_transport(pairing.traveller, elsewhere)
    pair = wrapping.mint_pair(LABEL, None)
    unwrapping = open_transport(pairing.host, wrapping.ephemeral_public_key)
    with pytest.raises(TokenError, match="does not unwrap"):
        unwrapping.import_pair(pair.key_id, LABEL, pair.public_key, pair.wrapped, None)
    assert nothing_taken_in(pairing)


GOOD = spki_of(ec.derive_private_key(5, ec.SECP256R1()).public_key())


@pytest.mark.parametrize(
    "public_key",
    [
        b"",
        GOOD[:-1],
        GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
        spki_of(ec.derive_private_key(5, ec.SECP384R1()).public_key()),
        spki_of(ec.derive_private_key(5, ec.SECP521R1()).public_key()),
    ],
    ids=["empty", "cut", "off-curve", "P-384", "P-521"],
)
def test_an_invalid_peer_is_refused(pairing: Pairing, public_key: bytes) -> None:
    with pytest.raises(TokenError, match="transport key is no"):
        agree_transport(pairing.traveller, public_key)
    with pytest.raises(TokenError, match="ephemeral key is no"):
        open_transport(pairing.host, public_key)


def test_a_token_without_transport_key_opens_none(pairing: Pairing) -> None:
    with pytest.raises(TokenError, match="holds no transport key"):
        open_transport(pairing.traveller, GOOD)


def test_a_label_that_is_not_ours_is_refused(pairing: Pairing) -> None:
    with pytest.raises(ValueError, match="not the label"):
        pairing.wrapping.mint_pair("carnet transport", None)
    assert not objects(pairing.traveller, ObjectClass.PRIVATE_KEY)


def test_a_pair_whose_public_half_cannot_be_stored_is_not_kept(
    pairing: Pairing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise pkcs11.DeviceMemory

    pair = pairing.wrapping.mint_pair(LABEL, None)
    monkeypatch.setattr(keys, "store_public_key", full)
    monkeypatch.setattr(keys, "keep_public_half", full)
    with pytest.raises(TokenError, match="token is full"):
        pairing.wrapping.mint_pair(pair_label(MINTED, 2), None)
    with pytest.raises(TokenError, match="token is full"):
        take_in(pairing, pair)
    assert len(objects(pairing.traveller, ObjectClass.PRIVATE_KEY)) == 1
    assert nothing_taken_in(pairing)


def test_a_private_key_that_could_leave_is_not_accepted(session: TokenSession) -> None:
    public, private = keys.generate_session_pair(
        session, keys.P256, use=MechanismFlag.SIGN, extractable=True
    )
    read = keys.read_public_key(public)
    assert read is not None
    with pytest.raises(TokenError, match="would let the private key out"):
        keys.prove(private, read[1])
