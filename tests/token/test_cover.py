"""The cover on a real token: only the officer's word counts, whatever lies beside it."""

import pytest
from pkcs11 import Attribute, ObjectClass

from carnet.cover import COVER_LABEL, OFFICER_LABEL, read_cover, read_unverified_cover
from carnet.errors import TokenError
from carnet.token.data import write_data
from carnet.wire.documents import Cover, sign_document
from tests.unit.examples import SoftwareKey


@pytest.fixture
def officer():
    return SoftwareKey()


@pytest.fixture
def cover(session):
    return Cover(
        version=1,
        user_id="alice@office",
        token_serial=session.token.info.serial,
        hosts=("http://203.0.113.2:8470",),
        targets=("work",),
        custody="paired",
        suite=1,
        host_keys=(),
        issued_at=1_000,
        not_after=None,
    )


@pytest.fixture
def booklet(session, officer, cover):
    write_data(session, OFFICER_LABEL, officer.public_key, private=True)
    write_data(session, COVER_LABEL, sign_document(cover, officer.sign), private=False)
    return session


def changed(cover, **changes):
    fields = {name: getattr(cover, name) for name in cover.__struct_fields__}
    return Cover(**(fields | changes))


def put_beside(session, value):
    session.raw.create_object(
        {
            Attribute.CLASS: ObjectClass.DATA,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: False,
            Attribute.APPLICATION: "carnet",
            Attribute.LABEL: COVER_LABEL,
            Attribute.VALUE: value,
        }
    )


def test_the_officers_cover_is_read(booklet, cover):
    assert read_cover(booklet) == cover
    assert read_unverified_cover(booklet) == cover


def test_a_token_without_a_cover_says_so(session):
    assert read_cover(session) is None
    assert read_unverified_cover(session) is None


def test_what_a_stranger_puts_beside_it_changes_nothing(booklet, cover):
    forger = SoftwareKey()
    forged = changed(cover, hosts=("http://192.0.2.1:1",), issued_at=9_000)
    put_beside(booklet, sign_document(forged, forger.sign))
    put_beside(booklet, b"no cover at all")
    assert read_cover(booklet) == cover


def test_of_two_that_the_officer_signed_the_newer_counts(booklet, cover, officer):
    newer = changed(cover, targets=("home",), issued_at=2_000)
    put_beside(booklet, sign_document(newer, officer.sign))
    assert read_cover(booklet) == newer


@pytest.mark.parametrize("what", ["forged", "another token's", "cut short", "another key pinned"])
def test_what_the_officer_did_not_sign_for_this_token_is_refused(session, officer, cover, what):
    signed = {
        "forged": sign_document(cover, SoftwareKey().sign),
        "another token's": sign_document(changed(cover, token_serial="00"), officer.sign),
        "cut short": sign_document(cover, officer.sign)[:-1],
        "another key pinned": sign_document(cover, officer.sign),
    }[what]
    write_data(session, OFFICER_LABEL, officer.public_key, private=True)
    write_data(session, COVER_LABEL, signed, private=False)
    pinned = SoftwareKey().public_key if what == "another key pinned" else None
    with pytest.raises(TokenError, match="do not use the token"):
        read_cover(session, pinned)
