"""The cover of a token that takes no data objects: a file, and every byte of it the officer's."""

import pytest

from carnet.cover import read_cover_file, shown_cover_file
from carnet.errors import TokenError
from carnet.wire.cover_file import pack_cover_file, unpack_cover_file
from carnet.wire.documents import Batch, BatchPair, Cover, sign_document
from carnet.wire.fault import WireError
from carnet.wire.keys import key_id_of
from tests.unit.examples import SoftwareKey

SERIAL = "0123456789abcdef"
HOST = tuple(SoftwareKey().public_key for _ in range(2))


@pytest.fixture
def officer():
    return SoftwareKey()


@pytest.fixture
def pair():
    return SoftwareKey()


def cover(**changes):
    fields = {
        "version": 1,
        "user_id": "alice@office",
        "token_serial": SERIAL,
        "hosts": ("https://host.example",),
        "targets": ("work",),
        "custody": "split",
        "suite": 1,
        "host_keys": HOST,
        "issued_at": 1,
        "not_after": None,
    }
    return Cover(**(fields | changes))


def batch(pair, **changes):
    fields = {
        "version": 1,
        "batch_id": bytes(16),
        "host_transport_key": HOST[0],
        "ephemeral_key": None,
        "user_id": "alice@office",
        "token_serial": SERIAL,
        "custody": "split",
        "suite": 1,
        "minted_at": 1,
        "not_after": 86400,
        "pairs": (BatchPair(label="first", public_key=pair.public_key, wrapped=None),),
    }
    return Batch(**(fields | changes))


def packed(officer, cover, *batches, batches_by=None):
    signed = [sign_document(each, (batches_by or officer).sign) for each in batches]
    return pack_cover_file(sign_document(cover, officer.sign), signed)


def test_it_says_which_keys_are_pairs_and_until_when(officer, pair):
    data = packed(officer, cover(), batch(pair))
    read = read_cover_file(data, officer.public_key, SERIAL)
    assert read == shown_cover_file(data)
    assert read.cover == cover()
    (listed,) = read.pairs
    assert (listed.key_id, listed.label) == (key_id_of(pair.public_key), "first")
    assert (listed.key_type, str(listed.not_after)) == ("ec-p256", "1970-01-02")


def test_what_is_not_all_of_it_the_officers_for_this_token_is_refused(officer, pair):
    stranger = SoftwareKey()
    wrong = {
        "another officer": packed(stranger, cover(), batch(pair)),
        "another officer's batch": packed(officer, cover(), batch(pair), batches_by=stranger),
        "another token's": packed(officer, cover(token_serial="1"), batch(pair)),
        "another token's batch": packed(officer, cover(), batch(pair, token_serial="1")),
        "another user's batch": packed(officer, cover(), batch(pair, user_id="bob@office")),
        "a batch in custody paired": packed(officer, cover(), batch(pair, custody="paired")),
        "a cover in custody paired": packed(officer, cover(custody="paired"), batch(pair)),
        "a key that is none": packed(
            officer, cover(), batch(pair, pairs=(BatchPair(label="", public_key=bytes(32),
                                                          wrapped=None),))),
        "a byte more": packed(officer, cover(), batch(pair)) + b"\0",
        "nothing": b"",
    }  # fmt: skip
    for data in wrong.values():
        with pytest.raises(TokenError, match="is not what the security officer signed"):
            read_cover_file(data, officer.public_key, SERIAL)


def test_what_is_no_cover_file_is_none():
    for data in (b"\x80", b"\x81\x41a", b"\x82\x41a\x01", b"\xa0", bytes(2**20 + 1)):
        with pytest.raises(WireError):
            unpack_cover_file(data)
    assert shown_cover_file(pack_cover_file(b"a", [b"b"])) is None
