"""What real tokens show of their key pairs without the PIN."""

from datetime import date
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import ObjectClass

from carnet.token import keys
from carnet.token.module import Token
from carnet.token.onetime import OneTimeKeys, pair_label
from carnet.token.rsa_type import OAEP_HASHES
from carnet.token.session import open_public_session, open_session
from carnet.token.shown import ShownPair, shown_pairs
from carnet.token.transport import agree_transport
from tests.token.helpers import MINTED, PIN, spki_of

LAST_DAY = date(2027, 3, 1)
KINDS: tuple[tuple[str, Any], ...] = (
    ("ec-p256", None),
    ("ec-p384", None),
    ("rsa-2048", OAEP_HASHES["sha-1"]),
)


def test_pairs_of_every_type_are_shown_without_the_pin(token: Token) -> None:
    stranger = spki_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    with open_session(token, PIN, writable=True) as session:
        minter = agree_transport(session, stranger)
        minted = [
            minter.mint_pair(pair_label(MINTED, number), LAST_DAY, keys.TYPES[name], oaep)
            for number, (name, oaep) in enumerate(KINDS)
        ]
        keys.store_public_key(session, stranger, "no pair's", None)
        OneTimeKeys(session).destroy(minted[0].key_id)
    with open_public_session(token) as session:
        shown = shown_pairs(session)
        assert len(session.find(ObjectClass.PUBLIC_KEY, {})) > len(shown)
    assert {pair.public_key: pair for pair in shown} == {
        pair.public_key: ShownPair(name, pair.public_key, LAST_DAY)
        for pair, (name, _) in zip(minted[1:], KINDS[1:], strict=True)
    }
