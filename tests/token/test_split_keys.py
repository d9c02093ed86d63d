"""Pairs that only sign, and the Host's long-term keys, on real SoftHSM2 tokens."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, ObjectClass
from pkcs11.types import SignMixin

from carnet.errors import TokenCannotError, TokenError
from carnet.token import keys
from carnet.token.host_keys import (
    HostKeys,
    UnknownHostKeyError,
    destroy_host_keys,
    make_host_keys,
)
from carnet.token.onetime import OneTimeKeys, pair_label
from carnet.token.rsa_type import OAEP_HASHES
from carnet.token.session import TokenSession
from carnet.token.signing import find_pending_key, make_pending_key
from tests.token.helpers import DIGEST, MINTED, load, mint_signing_pair, objects, point_of, verify

LABEL = pair_label(MINTED, 1)


@pytest.mark.parametrize("name", ["ec-p256", "ec-p384", "rsa-2048"])
def test_a_pair_signs_and_can_do_nothing_else(session: TokenSession, name: str) -> None:
    public_key = mint_signing_pair(session, LABEL, keys.TYPES[name])
    (pair,) = OneTimeKeys(session).pairs()
    assert (pair.public_key, pair.key_type, pair.label) == (public_key, name, LABEL)
    (private,) = objects(session, ObjectClass.PRIVATE_KEY)
    keys.prove_signing(private, public_key)
    assert private[Attribute.NEVER_EXTRACTABLE]
    assert not private[Attribute.DECRYPT if name.startswith("rsa") else Attribute.DERIVE]


def test_a_pair_that_could_have_been_elsewhere_is_none(session: TokenSession) -> None:
    public, private = keys.generate_session_pair(
        session, keys.P256, use=keys.P256.use, extractable=True
    )
    read = keys.read_public_key(public)
    assert read is not None
    kept = private.copy({Attribute.EXTRACTABLE: False})
    with pytest.raises(TokenError, match=r"did not make it itself to keep it \(none in custody p"):
        keys.prove_signing(kept, read[1])


def test_a_pair_never_agrees_for_whoever_has_the_pin(session: TokenSession) -> None:
    public_key = mint_signing_pair(session, LABEL, keys.P256)
    peer = point_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    with pytest.raises(TokenCannotError, match="does not agree"):
        OneTimeKeys(session).agree(keys.key_id(public_key), peer)


def test_an_rsa_pair_never_decrypts_for_whoever_has_the_pin(session: TokenSession) -> None:
    public_key = mint_signing_pair(session, LABEL, keys.TYPES["rsa-2048"])
    with pytest.raises(TokenCannotError, match="does not decrypt"):
        OneTimeKeys(session).decrypt(keys.key_id(public_key), bytes(256), OAEP_HASHES["sha-1"])


def test_the_host_has_a_couple_for_each_curve_made_once(session: TokenSession) -> None:
    made = make_host_keys(session)
    assert [(each.generation, each.key_type) for each in made] == [(1, "ec-p256"), (1, "ec-p384")]
    assert make_host_keys(session) == made == HostKeys(session).couples()
    peer = ec.generate_private_key(ec.SECP256R1())
    couple = made[0]
    held = HostKeys(session)
    agreed = held.agree(couple.key_id, point_of(peer.public_key()))
    assert agreed == peer.exchange(ec.ECDH(), load(couple.sealing))
    verify(couple.signing, held.sign(couple.key_id, DIGEST))


def test_each_of_the_hosts_keys_has_one_use(session: TokenSession) -> None:
    make_host_keys(session)
    found = session.find(ObjectClass.PRIVATE_KEY, {Attribute.TOKEN: True})
    assert len(found) == 4
    for private in found:
        signs = " sign " in private[Attribute.LABEL]
        assert (private[Attribute.SIGN], private[Attribute.DERIVE]) == (signs, not signs)
        assert not private[Attribute.EXTRACTABLE]


def test_generations_stand_side_by_side_until_one_is_destroyed(session: TokenSession) -> None:
    held = HostKeys(session)
    (old, _), (new, _) = make_host_keys(session), make_host_keys(session, anew=True)
    assert (old.generation, new.generation) == (1, 2)
    # Made after it was listed, and found all the same.
    assert held.sealing_key(new.key_id) == new.sealing
    assert held.sealing_key(old.key_id) == old.sealing
    assert destroy_host_keys(session, 1) == 8
    with pytest.raises(UnknownHostKeyError, match=old.key_id.hex()):
        HostKeys(session).sealing_key(old.key_id)
    assert make_host_keys(session)[0] == new


def test_a_key_that_is_destroyed_after_it_was_listed_is_unknown(session: TokenSession) -> None:
    """As by another process, while the service has it listed."""
    (old, _), peer = make_host_keys(session), ec.generate_private_key(ec.SECP256R1())
    held = HostKeys(session)
    point = point_of(peer.public_key())
    held.agree(old.key_id, point)
    destroy_host_keys(session, 1)
    with pytest.raises(UnknownHostKeyError):
        held.agree(old.key_id, point)
    with pytest.raises(UnknownHostKeyError):
        held.sign(old.key_id, DIGEST)


def test_a_generation_that_was_cut_off_is_completed(session: TokenSession) -> None:
    made = make_host_keys(session)
    label = {Attribute.LABEL: "carnet host sign ec-p384 0001"}
    for object_class in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
        session.find(object_class, label)[0].destroy()
    assert HostKeys(session).couples() == made[:1]
    completed = make_host_keys(session)
    assert completed[0] == made[0]
    assert completed[1].sealing == made[1].sealing


def test_what_a_client_keeps_is_under_a_key_that_agrees_alone(session: TokenSession) -> None:
    assert find_pending_key(session) is None
    public_key = make_pending_key(session)
    assert public_key is not None
    assert make_pending_key(session) == public_key
    found = find_pending_key(session)
    assert found is not None
    assert found.public_key == public_key
    peer = ec.generate_private_key(ec.SECP256R1())
    assert found.agree(point_of(peer.public_key())) == peer.exchange(ec.ECDH(), load(public_key))
    (private,) = session.find(ObjectClass.PRIVATE_KEY, {Attribute.LABEL: "carnet pending"})
    assert not isinstance(private, SignMixin)
