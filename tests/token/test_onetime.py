import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pkcs11
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.attributes import AttributeMapper
from pkcs11.util.ec import encode_named_curve_parameters

from carnet.errors import TokenError
from carnet.token import keys
from carnet.token.module import Token
from carnet.token.onetime import OneTimeKeys, is_pair_label, pair_label, unless_gone
from carnet.token.session import TokenSession, open_public_session, open_session
from carnet.token.transport import WrappingKey, agree_transport
from tests.token.helpers import (
    DIGEST,
    MINTED,
    PIN,
    Pairing,
    load,
    objects,
    point_of,
    spki_of,
    verify,
)

THREADS = 8
ROUNDS = 50


@pytest.fixture
def minter(session: TokenSession) -> WrappingKey:
    return agree_transport(session, spki_of(ec.generate_private_key(ec.SECP256R1()).public_key()))


def test_labels_sort_in_the_order_of_use() -> None:
    order = [
        pair_label(MINTED, 2),
        pair_label(MINTED, 10),
        pair_label(MINTED + timedelta(days=20), 1),
    ]
    assert sorted(order) == order
    assert order[1] == "carnet 20261123T101500Z 0010"
    assert all(is_pair_label(label) for label in order)
    assert not is_pair_label("carnet transport")
    for number in (-1, 10000):
        with pytest.raises(ValueError, match="from 0 to 9999"):
            pair_label(MINTED, number)


def test_pairs_come_in_the_order_of_use(session: TokenSession, minter: WrappingKey) -> None:
    minted = {n: minter.mint_pair(pair_label(MINTED, n), None) for n in (3, 1, 2)}
    pairs = OneTimeKeys(session).pairs()
    assert [pair.key_id for pair in pairs] == [minted[n].key_id for n in (1, 2, 3)]
    assert [pair.public_key for pair in pairs] == [minted[n].public_key for n in (1, 2, 3)]


def test_a_pair_describes_itself(session: TokenSession, minter: WrappingKey) -> None:
    last_day = date(2027, 3, 1)
    dated = minter.mint_pair(pair_label(MINTED, 1), last_day)
    minter.mint_pair(pair_label(MINTED, 2), None)
    first, second = OneTimeKeys(session).pairs()
    assert first.key_id == hashlib.sha256(dated.public_key).digest()[:16]
    assert (first.label, first.key_type) == (pair_label(MINTED, 1), "ec-p256")
    assert (first.not_after, second.not_after) == (last_day, None)


def test_signing(session: TokenSession, minter: WrappingKey) -> None:
    pair = minter.mint_pair(pair_label(MINTED, 1), None)
    verify(pair.public_key, OneTimeKeys(session).sign(pair.key_id, DIGEST))


def test_agreeing_keeps_leading_zeros(session: TokenSession, minter: WrappingKey) -> None:
    pair = minter.mint_pair(pair_label(MINTED, 1), None)
    ours = load(pair.public_key)
    while True:
        peer = ec.generate_private_key(ec.SECP256R1())
        expected = peer.exchange(ec.ECDH(), ours)
        if expected[0] == 0:
            break
    assert OneTimeKeys(session).agree(pair.key_id, point_of(peer.public_key())) == expected


def test_agreeing_leaves_no_secret_behind(session: TokenSession, minter: WrappingKey) -> None:
    pair = minter.mint_pair(pair_label(MINTED, 1), None)
    before = session.find(ObjectClass.SECRET_KEY, {})
    peer = ec.generate_private_key(ec.SECP256R1()).public_key()
    OneTimeKeys(session).agree(pair.key_id, point_of(peer))
    assert len(session.find(ObjectClass.SECRET_KEY, {})) == len(before)


VALID = point_of(ec.derive_private_key(1, ec.SECP256R1()).public_key())


@pytest.mark.parametrize(
    "point",
    [
        b"",
        b"\x00",
        VALID[:-1],
        VALID + b"\x00",
        VALID[:-1] + bytes([VALID[-1] ^ 1]),
        b"\x04" + bytes(64),
        b"\x02" + VALID[1:33],
        point_of(ec.derive_private_key(1, ec.SECP384R1()).public_key()),
    ],
    ids=["empty", "infinity", "cut", "long", "off-curve", "zero", "compressed", "P-384"],
)
def test_an_invalid_point_never_reaches_the_token(
    session: TokenSession, minter: WrappingKey, point: bytes
) -> None:
    pair = minter.mint_pair(pair_label(MINTED, 1), None)
    with pytest.raises(ValueError, match=r"point|EC key"):
        OneTimeKeys(session).agree(pair.key_id, point)


def test_a_destroyed_pair_is_gone_from_the_token(
    session: TokenSession, minter: WrappingKey
) -> None:
    burned = minter.mint_pair(pair_label(MINTED, 1), None)
    kept = minter.mint_pair(pair_label(MINTED, 2), None)
    booklet = OneTimeKeys(session)
    assert booklet.destroy(burned.key_id)
    assert not booklet.destroy(burned.key_id)
    for object_class in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
        assert [o[Attribute.ID] for o in objects(session, object_class)] == [kept.key_id]
    for listing in (booklet, OneTimeKeys(session)):
        assert [pair.key_id for pair in listing.pairs()] == [kept.key_id]
        with pytest.raises(TokenError, match="does not hold key pair"):
            listing.sign(burned.key_id, DIGEST)


def test_two_listings_burn_a_pair_once(session: TokenSession, minter: WrappingKey) -> None:
    pair = minter.mint_pair(pair_label(MINTED, 1), None)
    first, second = OneTimeKeys(session), OneTimeKeys(session)
    assert [first.destroy(pair.key_id), second.destroy(pair.key_id)] == [True, False]
    with pytest.raises(TokenError):
        second.sign(pair.key_id, DIGEST)


def test_a_pair_that_was_put_back_since_the_listing_is_destroyed(pairing: Pairing) -> None:
    label = pair_label(MINTED, 1)
    pair = pairing.wrapping.mint_pair(label, None)

    def put() -> None:
        wrapped, public_key = pair.wrapped, pair.public_key
        pairing.unwrapping.import_pair(pair.key_id, label, public_key, wrapped, None)

    put()
    listed = OneTimeKeys(pairing.host)
    pairing.unwrapping.drop(pair.key_id)
    put()
    assert listed.destroy(pair.key_id)
    assert not objects(pairing.host, ObjectClass.PRIVATE_KEY)
    assert not objects(pairing.host, ObjectClass.PUBLIC_KEY)


def test_a_pair_stored_after_the_listing_is_found(
    session: TokenSession, minter: WrappingKey
) -> None:
    booklet = OneTimeKeys(session)
    pair = minter.mint_pair(pair_label(MINTED, 1), None)
    verify(pair.public_key, booklet.sign(pair.key_id, DIGEST))
    assert [one.key_id for one in booklet.pairs()] == [pair.key_id]


@pytest.fixture
def half_listed(
    session: TokenSession, minter: WrappingKey, monkeypatch: pytest.MonkeyPatch
) -> tuple[OneTimeKeys, bytes]:
    """A listing that saw but the public half of a pair that was stored meanwhile; its key id."""
    real, minted = OneTimeKeys._of_pairs, list[bytes]()

    def of_pairs(self: OneTimeKeys, object_class: ObjectClass, template: dict) -> list:
        if object_class is ObjectClass.PUBLIC_KEY and not minted:
            minted.append(minter.mint_pair(pair_label(MINTED, 1), None).key_id)
        return real(self, object_class, template)

    monkeypatch.setattr(OneTimeKeys, "_of_pairs", of_pairs)
    listed = OneTimeKeys(session)
    assert listed.halves() == set(minted)
    return listed, minted[0]


def test_a_pair_stored_during_the_listing_is_usable(half_listed: tuple[OneTimeKeys, bytes]) -> None:
    listed, key_id = half_listed
    assert listed.sign(key_id, DIGEST)
    assert listed.holds(key_id)


def test_a_pair_stored_during_the_listing_is_destroyed_whole(
    session: TokenSession, half_listed: tuple[OneTimeKeys, bytes]
) -> None:
    listed, key_id = half_listed
    assert listed.destroy(key_id)
    assert objects(session, ObjectClass.PRIVATE_KEY) == []
    assert objects(session, ObjectClass.PUBLIC_KEY) == []


def test_half_a_pair_is_none(session: TokenSession, minter: WrappingKey) -> None:
    for number in (1, 2):
        minter.mint_pair(pair_label(MINTED, number), None)
    objects(session, ObjectClass.PRIVATE_KEY)[0].destroy()
    private = objects(session, ObjectClass.PRIVATE_KEY)[0]
    public = session.find(ObjectClass.PUBLIC_KEY, {Attribute.ID: private[Attribute.ID]})
    public[0].destroy()
    booklet = OneTimeKeys(session)
    assert booklet.pairs() == []
    assert len(booklet.halves()) == 2
    assert all(booklet.destroy(key_id) for key_id in booklet.halves())
    assert not objects(session, ObjectClass.PRIVATE_KEY)
    assert not objects(session, ObjectClass.PUBLIC_KEY)


def test_a_public_key_planted_without_pin_is_not_believed(
    make_token: Callable[[str], Token],
) -> None:
    token = make_token("traveller")
    thief = spki_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    label = pair_label(MINTED, 1)
    with open_session(token, PIN, writable=True) as session:
        pair = agree_transport(session, thief).mint_pair(label, None)
        for public in objects(session, ObjectClass.PUBLIC_KEY):
            public.destroy()
    with open_public_session(token, writable=True) as without_pin:
        planted = keys.store_public_key(without_pin, thief, label, None)
        planted[Attribute.ID] = pair.key_id
        keys.store_public_key(without_pin, pair.public_key, "carnet 20000101T000000Z 0000", None)
    with open_session(token, PIN, writable=True) as session:
        (listed,) = OneTimeKeys(session).pairs()
    assert (listed.public_key, listed.label) == (pair.public_key, label)


def test_other_keys_are_left_out(session: TokenSession) -> None:
    label = pair_label(MINTED, 1)
    p521 = session.raw.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: encode_named_curve_parameters("secp521r1")}, local=True
    )
    p521.generate_keypair(store=True, id=b"p521", label=label)
    session.raw.generate_keypair(KeyType.RSA, 1024, store=True, id=b"rsa", label=label)
    booklet = OneTimeKeys(session)
    assert booklet.pairs() == []
    with pytest.raises(TokenError, match="does not hold"):
        booklet.sign(b"p521", DIGEST)


def test_what_others_damaged_disturbs_nothing(session: TokenSession, minter: WrappingKey) -> None:
    label = pair_label(MINTED, 1)
    pair = minter.mint_pair(label, date(2027, 3, 1))
    mapper = AttributeMapper()
    for attribute in (Attribute.LABEL, Attribute.END_DATE):
        mapper.register_handler(attribute, bytes, bytes)
    damaged = {
        Attribute.CLASS: ObjectClass.PUBLIC_KEY,
        Attribute.KEY_TYPE: KeyType.EC,
        Attribute.TOKEN: True,
        Attribute.ID: pair.key_id,
        Attribute.EC_PARAMS: keys.P256.parameters,
        Attribute.EC_POINT: b"\x04\x01\xff",
    }
    with session.token.handle.open(rw=True, attribute_mapper=mapper) as raw:
        for public in list(raw.get_objects({Attribute.ID: pair.key_id})):
            if public[Attribute.CLASS] == ObjectClass.PUBLIC_KEY:
                public[Attribute.END_DATE] = b"20279999"
        for text in (b"\xff\xfe", label.encode()):
            public = raw.create_object({**damaged, Attribute.LABEL: text})
            assert keys.read_public_key(public) is None
    (listed,) = OneTimeKeys(session).pairs()
    assert (listed.public_key, listed.not_after) == (pair.public_key, None)


def test_p384_is_read_where_it_stands(session: TokenSession) -> None:
    parameters = session.raw.create_domain_parameters(
        KeyType.EC, {Attribute.EC_PARAMS: keys.P384.parameters}, local=True
    )
    public, private = parameters.generate_keypair(store=True, label=pair_label(MINTED, 1))
    read = keys.read_public_key(public)
    assert read is not None
    public_key = read[1]
    for half in (public, private):
        half[Attribute.ID] = keys.key_id(public_key)
    booklet = OneTimeKeys(session)
    (pair,) = booklet.pairs()
    assert (pair.key_type, pair.public_key) == ("ec-p384", public_key)
    peer = ec.generate_private_key(ec.SECP384R1())
    expected = peer.exchange(ec.ECDH(), load(public_key))
    assert booklet.agree(pair.key_id, point_of(peer.public_key())) == expected


class Going:
    """An object that another session destroys while it is read, or one that fails for good."""

    def __init__(self, *errors: type[pkcs11.PKCS11Error]) -> None:
        self.errors = list(errors)

    def __getitem__(self, attribute: Attribute) -> None:
        raise self.errors.pop(0)


def test_what_goes_while_it_is_read_is_passed_over() -> None:
    """SoftHSM2 under threads: first an error in general, then an invalid handle."""
    going = Going(pkcs11.GeneralError, pkcs11.ObjectHandleInvalid)
    with unless_gone(going):
        going[Attribute.ID]
    assert not going.errors


@pytest.mark.parametrize("then", [pkcs11.GeneralError, pkcs11.SessionHandleInvalid])
def test_what_fails_otherwise_is_not_passed_over(then: type[pkcs11.PKCS11Error]) -> None:
    failing = Going(pkcs11.GeneralError, then)
    with pytest.raises(pkcs11.GeneralError), unless_gone(failing):
        failing[Attribute.ID]


def test_threads_sign_and_agree_at_once(pairing: Pairing) -> None:
    shared = [pairing.share(number) for number in range(THREADS)]
    booklets = [OneTimeKeys(pairing.traveller), OneTimeKeys(pairing.host)]
    public_keys = {pair.key_id: pair.public_key for pair in booklets[0].pairs()}

    def work(number: int) -> int:
        key_id = shared[number]
        for round_ in range(ROUNDS):
            booklet = booklets[round_ % 2]
            digest = hashlib.sha256(f"{number} {round_}".encode()).digest()
            verify(public_keys[key_id], booklet.sign(key_id, digest), digest)
            peer = ec.generate_private_key(ec.SECP256R1())
            expected = peer.exchange(ec.ECDH(), load(public_keys[key_id]))
            assert booklet.agree(key_id, point_of(peer.public_key())) == expected
        return number

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(work, range(THREADS))) == list(range(THREADS))
