"""Keys of batches on the Host's token, and private keys unwrapped under them for a moment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, ObjectClass

from carnet.errors import TokenAwayError, TokenError
from carnet.token.batch_keys import BatchKeys, UnwrappedKey
from carnet.token.module import Module, Token
from carnet.token.nameless import sweep_nameless
from carnet.token.onetime import OneTimeKeys, pair_label
from carnet.token.session import TokenSession, open_session
from carnet.token.transport import MintedPair
from tests.token.helpers import DIGEST, MINTED, PIN, Pairing, load, point_of, verify
from tests.token.test_nameless import NAMELESS, files

KEK_ID, BATCH_ID = bytes(15) + b"1", bytes(range(16))


@pytest.fixture
def kept(pairing: Pairing) -> MintedPair:
    """A pair whose batch's key is on the Host's token, and its private key wrapped beside it."""
    pair = pairing.wrapping.mint_pair(pair_label(MINTED, 1), None)
    pairing.unwrapping.keep(KEK_ID, BATCH_ID)
    return pair


def private_keys(session: TokenSession) -> list[Any]:
    found = session.find(ObjectClass.PRIVATE_KEY, {})
    return [key for key in found if key[Attribute.LABEL] != "carnet transport"]


def test_a_private_key_is_there_for_as_long_as_it_is_used(
    pairing: Pairing, kept: MintedPair
) -> None:
    batches = BatchKeys(pairing.host)
    assert batches.held() == {KEK_ID}
    peer = ec.generate_private_key(ec.SECP256R1())
    with batches.unwrapped(KEK_ID, kept.key_id, kept.public_key, kept.wrapped) as key:
        verify(kept.public_key, key.sign(DIGEST))
        agreed = key.agree(point_of(peer.public_key()))
        (private,) = private_keys(pairing.host)
        assert not private[Attribute.TOKEN]
        assert private[Attribute.SENSITIVE]
        assert not private[Attribute.EXTRACTABLE]
    assert agreed == peer.exchange(ec.ECDH(), load(kept.public_key))
    assert private_keys(pairing.host) == []


def test_what_fails_inside_leaves_no_private_key(pairing: Pairing, kept: MintedPair) -> None:
    batches = BatchKeys(pairing.host)

    def use() -> None:
        with batches.unwrapped(KEK_ID, kept.key_id, kept.public_key, kept.wrapped) as key:
            assert isinstance(key, UnwrappedKey)
            key.agree(bytes(65))

    with pytest.raises(ValueError, match="uncompressed point"):
        use()
    assert private_keys(pairing.host) == []


def test_the_key_of_a_batch_unwraps_and_does_nothing_else(
    pairing: Pairing, kept: MintedPair
) -> None:
    batches = BatchKeys(pairing.host)
    batches.prove(KEK_ID, kept.public_key, kept.wrapped, None)
    (kek,) = pairing.host.find(ObjectClass.SECRET_KEY, {Attribute.TOKEN: True})
    assert kek[Attribute.LABEL] == f"carnet batch {BATCH_ID.hex()}"
    assert kek[Attribute.PRIVATE]
    with pytest.raises(pkcs11.AttributeSensitive):
        kek[Attribute.VALUE]
    for attribute, value in ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False)):
        with pytest.raises(pkcs11.AttributeReadOnly):
            kek[attribute] = value
    for mixin in (pkcs11.EncryptMixin, pkcs11.DecryptMixin, pkcs11.WrapMixin, pkcs11.DeriveMixin):
        assert not isinstance(kek, mixin)


def test_a_key_of_a_batch_that_another_session_stored_is_found(
    pairing: Pairing,
) -> None:
    batches = BatchKeys(pairing.host)
    assert not batches.holds(KEK_ID)
    pairing.unwrapping.keep(KEK_ID, BATCH_ID)
    assert batches.holds(KEK_ID)


@pytest.mark.parametrize("wrong", ["another pair's key", "a changed one", "no such batch"])
def test_what_is_not_a_key_of_the_batch_is_not_unwrapped(
    pairing: Pairing, kept: MintedPair, wrong: str
) -> None:
    batches = BatchKeys(pairing.host)
    kek_id = bytes(16) if wrong == "no such batch" else KEK_ID
    wrapped = kept.wrapped if wrong != "a changed one" else bytes(len(kept.wrapped))
    public_key = kept.public_key
    if wrong == "another pair's key":
        public_key = pairing.wrapping.mint_pair(pair_label(MINTED, 2), None).public_key
    with pytest.raises(TokenError):
        batches.prove(kek_id, public_key, wrapped, None)
    assert private_keys(pairing.host) == []


def test_a_key_of_a_batch_that_is_destroyed_unwraps_no_more(
    pairing: Pairing, kept: MintedPair
) -> None:
    batches, other = BatchKeys(pairing.host), BatchKeys(pairing.host)
    assert batches.destroy(KEK_ID)
    assert not batches.destroy(KEK_ID)
    assert not other.destroy(KEK_ID)
    assert batches.held() == other.held() == frozenset()
    with pytest.raises(TokenError, match="import the batch"):
        batches.prove(KEK_ID, kept.public_key, kept.wrapped, None)
    assert not pairing.host.find(ObjectClass.SECRET_KEY, {Attribute.TOKEN: True})


def test_a_key_of_a_batch_is_not_said_to_be_gone_while_nobody_can_see_it(
    pairing: Pairing, kept: MintedPair, directory: Path
) -> None:
    batches = BatchKeys(pairing.host)
    tokens = directory / "softhsm" / "tokens"
    tokens.rename(tokens.with_name("away"))
    tokens.mkdir()
    with pytest.raises(TokenAwayError):
        batches.destroy(KEK_ID)


def test_an_import_that_was_cut_off_is_dropped(pairing: Pairing) -> None:
    key_id = pairing.share(1)
    pairing.unwrapping.drop(key_id)
    pairing.unwrapping.drop(key_id)
    assert not OneTimeKeys(pairing.host).holds(key_id)


def test_a_key_of_a_batch_that_was_cut_off_is_in_nobodys_way(
    directory: Path, module: Module, make_token: Callable[[str], Token]
) -> None:
    """SoftHSM2 reads no attribute of a secret key without a type; there is no key in it."""
    for label in ("traveller", "host"):
        make_token(label)
    with (
        open_session(module.choose("traveller"), PIN, writable=True) as traveller,
        open_session(module.choose("host"), PIN, writable=True) as host,
    ):
        Pairing(traveller, host).unwrapping.keep(KEK_ID, BATCH_ID)
    for path in files(directory, module, "host"):
        path.with_name(f"{uuid4()}.object").write_bytes(path.read_bytes()[:NAMELESS])
    with open_session(module.choose("host"), PIN, writable=True) as session:
        assert BatchKeys(session).held() == {KEK_ID}
        assert sweep_nameless(session) == 2
        assert BatchKeys(session).destroy(KEK_ID)
