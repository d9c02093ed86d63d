"""The pending request, sealed to a pair of each type on a real token."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from carnet.errors import TokenAwayError, TokenError
from carnet.token import keys
from carnet.token.identity import Identity
from carnet.token.onetime import OneTimeKeys, OneTimePair, pair_label
from carnet.token.rsa_type import OAEP_HASHES
from carnet.token.session import TokenSession
from carnet.token.signing import find_pending_key, make_pending_key
from carnet.token.transport import agree_transport
from carnet.wire import cbor
from carnet.wire.fault import WireError
from carnet.wire.session_key import EphemeralKey
from carnet.wire.suites import AnySuite, suite_of_key
from tests.token.helpers import MINTED, mint_signing_pair, spki_of
from token_client.pending import Pending, PendingStore
from token_client.vault import PairVault, SuiteOf, TokenVault

SUITES = {"ec-p256": 1, "ec-p384": 3, "rsa-2048": 4}
ALICE = Identity("1", "alice")
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


def kept(session: TokenSession, directory: Path, pair: OneTimePair, request: bytes) -> PendingStore:
    store = PendingStore(directory, ALICE, PairVault(OneTimeKeys(session), suite_of), "work")
    assert store.keep(Pending(pair.key_id, request, EPHEMERAL))
    return store


def found_again(
    session: TokenSession, directory: Path, suite_of: SuiteOf = suite_of
) -> Pending | None:
    return PendingStore(directory, ALICE, PairVault(OneTimeKeys(session), suite_of), "work").find()


@pytest.mark.parametrize("size", [1, 8192])
def test_it_opens_on_the_token(
    session: TokenSession, pair: OneTimePair, tmp_path: Path, size: int
) -> None:
    kept(session, tmp_path, pair, bytes(size))
    found = found_again(session, tmp_path)
    assert found is not None
    assert (found.key_id, found.sealed) == (pair.key_id, bytes(size))
    assert found.ephemeral.secret == EPHEMERAL.secret


def test_no_secret_stands_in_the_file(
    session: TokenSession, pair: OneTimePair, tmp_path: Path
) -> None:
    kept(session, tmp_path, pair, b"the request's bytes")
    (file,) = tmp_path.iterdir()
    written = file.read_bytes()
    assert EPHEMERAL.secret[:32] not in written
    assert b"the request's bytes" not in written


def test_what_cannot_be_read_is_known_by_its_pair(
    session: TokenSession, pair: OneTimePair, tmp_path: Path
) -> None:
    kept(session, tmp_path, pair, b"request")
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + bytes(9) + whole[middle + 9 :]
    for data, pairs in ((whole[:-9], set()), (changed, {pair.key_id})):
        file.write_bytes(data)
        store = PendingStore(tmp_path, ALICE, PairVault(OneTimeKeys(session), suite_of), "work")
        assert (store.find(), store.unreadable) == (None, pairs)


def test_what_a_version_before_kept_is_dropped_and_known_by_its_pair(
    session: TokenSession, pair: OneTimePair, tmp_path: Path
) -> None:
    """It had no Target in its name, and would stay; what is kept by this one stays."""
    kept(session, tmp_path, pair, b"request")
    (file,) = tmp_path.iterdir()
    former = file.with_name(file.name.rpartition("-")[0])
    of_another = bytes(16)
    for data, pairs in (
        (cbor.encode({"key_id": of_another, "sealed": b"sealed"}), {of_another}),
        (b"?", set()),
    ):
        former.write_bytes(data)
        store = PendingStore(tmp_path, ALICE, PairVault(OneTimeKeys(session), suite_of), "work")
        found = store.find()
        assert found is not None
        assert (found.key_id, store.unreadable) == (pair.key_id, pairs)
        assert not former.exists()
        assert store.aside() == (of_another,)


def test_without_its_pair_it_is_dropped(
    session: TokenSession, pair: OneTimePair, tmp_path: Path
) -> None:
    kept(session, tmp_path, pair, b"request")
    OneTimeKeys(session).destroy(pair.key_id)
    assert found_again(session, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_changed_it_is_dropped(session: TokenSession, pair: OneTimePair, tmp_path: Path) -> None:
    """As when it was kept, which is the last of it."""
    kept(session, tmp_path, pair, b"request")
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert found_again(session, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_pair_of_an_unknown_suite_drops_it(
    session: TokenSession, pair: OneTimePair, tmp_path: Path
) -> None:
    kept(session, tmp_path, pair, b"request")

    def unknown(pair: OneTimePair) -> AnySuite:
        try:
            return suite_of_key(b"no key", 1)
        except WireError as error:
            raise TokenError(str(error)) from error

    assert found_again(session, tmp_path, unknown) is None
    assert list(tmp_path.iterdir()) == []


# Custody split: the pair only signs, so another key of the token is what opens.


def split_store(session: TokenSession, directory: Path) -> PendingStore:
    vault = TokenVault(OneTimeKeys(session), find_pending_key(session))
    return PendingStore(directory, ALICE, vault, "work")


def signing_pair(session: TokenSession) -> Pending:
    public_key = mint_signing_pair(session, pair_label(MINTED, 1), keys.P256)
    return Pending(keys.key_id(public_key), b"request", EPHEMERAL, b"evidence")


def test_in_custody_split_a_key_of_the_tokens_own_opens_it(
    session: TokenSession, tmp_path: Path
) -> None:
    make_pending_key(session)
    asked = signing_pair(session)
    assert split_store(session, tmp_path).keep(asked)
    found = split_store(session, tmp_path).find()
    assert found is not None
    assert (found.key_id, found.sealed, found.evidence) == (asked.key_id, b"request", b"evidence")
    assert found.ephemeral.secret == EPHEMERAL.secret
    OneTimeKeys(session).destroy(asked.key_id)
    assert split_store(session, tmp_path).find() is None
    assert list(tmp_path.iterdir()) == []


def test_a_token_that_only_signs_keeps_nothing(session: TokenSession, tmp_path: Path) -> None:
    asked = signing_pair(session)
    assert not split_store(session, tmp_path).keep(asked)
    assert list(tmp_path.iterdir()) == []
    assert split_store(session, tmp_path).find() is None


class PulledVault:
    """A token that was pulled before it could open anything."""

    def open(self, *_: object) -> bytes:
        raise TokenAwayError("The token is gone; insert it again.")


def test_a_token_that_is_pulled_meanwhile_costs_no_request(
    session: TokenSession, pair: OneTimePair, tmp_path: Path
) -> None:
    kept(session, tmp_path, pair, b"request")
    with pytest.raises(TokenAwayError):
        PendingStore(tmp_path, ALICE, PulledVault(), "work").find()  # type: ignore[arg-type]
    assert found_again(session, tmp_path) is not None
