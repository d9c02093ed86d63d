import pytest
from pkcs11 import Attribute, ObjectClass

from carnet.errors import TokenError
from carnet.token.data import read_data, write_data
from carnet.token.module import Token
from carnet.token.session import TokenSession, open_public_session, open_session
from tests.token.helpers import PIN

COVER = bytes(range(256)) * 8


def test_public_data_is_read_without_pin(token: Token) -> None:
    with open_session(token, PIN, writable=True) as session:
        assert read_data(session, "cover", private=False) is None
        write_data(session, "cover", COVER, private=False)
    with open_public_session(token) as session:
        assert read_data(session, "cover", private=False) == COVER
        assert read_data(session, "other", private=False) is None


def test_writing_replaces(token: Token) -> None:
    with open_session(token, PIN, writable=True) as session:
        for value in (COVER, b"newer"):
            write_data(session, "cover", value, private=False)
        assert read_data(session, "cover", private=False) == b"newer"
        assert len(session.find(ObjectClass.DATA, {})) == 1


def test_what_a_listing_misses_as_it_is_replaced_is_looked_for_again(
    token: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_session(token, PIN, writable=True) as session:
        write_data(session, "cover", COVER, private=False)
        find, listings = TokenSession.find, iter([[]])
        monkeypatch.setattr(TokenSession, "find", lambda *about: next(listings, find(*about)))
        assert read_data(session, "cover", private=False) == COVER


def test_private_data_is_unseen_and_unwritten_without_pin(token: Token) -> None:
    with open_session(token, PIN, writable=True) as session:
        write_data(session, "officer", b"key", private=True)
    with open_public_session(token, writable=True) as session:
        assert session.find(ObjectClass.DATA, {}) == []
        assert read_data(session, "officer", private=True) is None
        with pytest.raises(TokenError, match="wants a PIN"):
            write_data(session, "officer", b"thief", private=True)


def test_a_public_object_is_never_taken_for_a_private_one(token: Token) -> None:
    with open_public_session(token, writable=True) as session:
        write_data(session, "officer", b"thief", private=False)
    with open_session(token, PIN, writable=True) as session:
        assert read_data(session, "officer", private=True) is None
        write_data(session, "officer", b"key", private=True)
        assert read_data(session, "officer", private=True) == b"key"
        assert read_data(session, "officer", private=False) == b"thief"


def test_of_two_objects_none_is_guessed(token: Token) -> None:
    with open_session(token, PIN, writable=True) as session:
        write_data(session, "cover", COVER, private=False)
        (first,) = session.find(ObjectClass.DATA, {})
        first.copy({Attribute.TOKEN: True})
        assert read_data(session, "cover", private=False) == COVER
        session.raw.create_object(
            {
                Attribute.CLASS: ObjectClass.DATA,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: False,
                Attribute.APPLICATION: "carnet",
                Attribute.LABEL: "cover",
                Attribute.VALUE: b"another",
            }
        )
        with pytest.raises(TokenError, match="more than once"):
            read_data(session, "cover", private=False)
        write_data(session, "cover", b"newer", private=False)
        assert read_data(session, "cover", private=False) == b"newer"


def test_other_programs_data_is_not_ours(token: Token) -> None:
    with open_session(token, PIN, writable=True) as session:
        session.raw.create_object(
            {
                Attribute.CLASS: ObjectClass.DATA,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: False,
                Attribute.APPLICATION: "other",
                Attribute.LABEL: "cover",
                Attribute.VALUE: b"theirs",
            }
        )
        assert read_data(session, "cover", private=False) is None
