"""Keys that a card had before: which are pairs, and how they are burned."""

from types import SimpleNamespace

import pytest
from pkcs11 import Attribute, KeyType, MechanismFlag
from pkcs11.util.ec import encode_named_curve_parameters

from carnet.errors import TokenError
from carnet.token.adopted import AdoptedKeys, signing_keys
from carnet.token.onetime import OneTimePair
from carnet.token.session import open_session
from carnet.wire.keys import key_id_of
from provisioning.adopting import _enough
from tests.token.conftest import directory, make_token, module, token  # noqa: F401  fixtures
from tests.token.helpers import PIN

P256 = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}


@pytest.fixture
def session(token):  # noqa: F811
    """A login to a token with two keys, of which it has the first twice."""
    with open_session(token, PIN, writable=True) as opened:
        parameters = opened.raw.create_domain_parameters(KeyType.EC, P256, local=True)
        for name in (b"\1", b"\2"):
            halves = parameters.generate_keypair(
                store=True, id=name, label="mine", capabilities=MechanismFlag.SIGN
            )
            if name == b"\1":
                for half in halves:
                    half.copy({Attribute.TOKEN: True, Attribute.ID: b"\3"})
        yield opened


def test_a_key_that_a_card_has_twice_is_one_pair(session):
    def enough(count):
        order = SimpleNamespace(count=count, key_type="ec-p256")
        return [key.public_key for key in _enough(session, order, "mine")]

    first, second, again = (key.public_key for key in signing_keys(session))
    assert first == again
    assert enough(2) == [first, second]
    with pytest.raises(TokenError, match="has 2 keys"):
        enough(3)


def test_a_key_that_a_card_has_twice_is_burned_whole(session):
    public_key = signing_keys(session)[0].public_key
    key_id = key_id_of(public_key)
    pair = OneTimePair(
        key_id=key_id, label="", public_key=public_key, key_type="ec-p256", not_after=None
    )
    assert AdoptedKeys(session, [pair]).destroy(key_id)
    assert len(signing_keys(session)) == 1
    assert AdoptedKeys(session, [pair]).pairs() == []
