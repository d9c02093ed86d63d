"""The pending request, sealed to a pair of each type on a real token."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from carnet.errors import TokenError
from carnet.token import keys
from carnet.token.onetime import OneTimeKeys, OneTimePair, pair_label
from carnet.token.rsa_type import OAEP_HASHES
from carnet.token.session import TokenSession
from carnet.token.transport import agree_transport
from carnet.wire.fault import WireError
from carnet.wire.session_key import EphemeralKey
from carnet.wire.suites import AnySuite, suite_of_key
from tests.token.helpers import MINTED, spki_of
from token_client.pending import Pending, PendingStore

SUITES = {"ec-p256": 1, "ec-p384": 3, "rsa-2048": 4}
EPHEMERAL = EphemeralKey(bytes(range(96)))


@pytest.fixture(params=SUITES)
def pair(session: TokenSession, request: pytest.FixtureRequest) -> OneTimePair:
    thief = spki_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    oaep = OAEP_HASHES["sha-1"] if request.param.startswith("rsa") else None
    with agree_transport(session, thief) as wrapping:
        wrapping.mint_pair(pair_label(MINTED, 1), None, keys.TYPES[request.param], oaep)
    (made,) = OneTimeKeys(session).pairs()
    return made


def suite_of(pair: OneTimePair) -> AnySuite:
    return suite_of_key(pair.public_key, 4)


def kept(directory: Path, pair: OneTimePair, request: bytes) -> PendingStore:
    store = PendingStore(directory, "serial")
    pending = Pending(pair.key_id, request, EPHEMERAL)
    store.keep(pending, pair.public_key, suite_of(pair))
    return store


@pytest.mark.parametrize("size", [1, 8192])
def test_it_opens_on_the_token(
    session: TokenSession, pair: OneTimePair, tmp_path: Path, size: int
) -> None:
    store = kept(tmp_path, pair, bytes(size))
    found = store.find(OneTimeKeys(session), suite_of)
    assert found is not None
    assert (found.key_id, found.sealed) == (pair.key_id, bytes(size))
    assert found.ephemeral.secret == EPHEMERAL.secret


def test_no_secret_stands_in_the_file(
    session: TokenSession, pair: OneTimePair, tmp_path: Path
) -> None:
    kept(tmp_path, pair, b"the request's bytes")
    (file,) = tmp_path.iterdir()
    written = file.read_bytes()
    assert EPHEMERAL.secret[:32] not in written
    assert b"the request's bytes" not in written


def test_without_its_pair_it_is_dropped(
    session: TokenSession, pair: OneTimePair, tmp_path: Path
) -> None:
    store = kept(tmp_path, pair, b"request")
    OneTimeKeys(session).destroy(pair.key_id)
    assert store.find(OneTimeKeys(session), suite_of) is None
    assert list(tmp_path.iterdir()) == []


def test_changed_it_is_dropped(session: TokenSession, pair: OneTimePair, tmp_path: Path) -> None:
    store = kept(tmp_path, pair, b"request")
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert store.find(OneTimeKeys(session), suite_of) is None
    assert list(tmp_path.iterdir()) == []


def test_a_pair_of_an_unknown_suite_drops_it(
    session: TokenSession, pair: OneTimePair, tmp_path: Path
) -> None:
    store = kept(tmp_path, pair, b"request")

    def unknown(pair: OneTimePair) -> AnySuite:
        try:
            return suite_of_key(b"no key", 1)
        except WireError as error:
            raise TokenError(str(error)) from error

    assert store.find(OneTimeKeys(session), unknown) is None
    assert list(tmp_path.iterdir()) == []
