"""Whose a token is, and putting a cover on it."""

from carnet.cover import COVER_LABEL, OFFICER_LABEL, read_cover
from carnet.errors import TokenError
from carnet.token.data import read_data, write_data
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import TokenSession
from carnet.wire.documents import Cover
from provisioning.journal import is_unfinished
from provisioning.officer import Officer
from softhsm.durable import sync_token


def check_owner(
    session: TokenSession, officer: Officer, user_id: str, gone: frozenset[str]
) -> Cover | None:
    """Return the cover of this user's token; None for a token that is nobody's yet.

    Pairs whose labels begin as `gone` says are of a mint that was cut off. Raises TokenError if
    the token is another user's, under another officer, or holds pairs of which no cover says
    whose they are.
    """
    label = session.token.info.label
    check_officer(session, officer)
    cover = read_cover(session)
    if cover is None and not all(is_unfinished(p, gone) for p in OneTimeKeys(session).pairs()):
        raise TokenError(
            f"Token {label} holds key pairs but no cover; name the file of it by --cover, or burn "
            f"them all first."
        )
    if cover is not None and cover.user_id != user_id:
        raise TokenError(
            f"Token {label} belongs to {cover.user_id}; take another one, or initialise it anew."
        )
    return cover


def check_officer(session: TokenSession, officer: Officer) -> None:
    """Raise TokenError for a token that is under another officer."""
    named = read_data(session, OFFICER_LABEL, private=True)
    if named is not None and named != officer.public_key:
        raise TokenError(
            f"Token {session.token.info.label} is under another officer; let her mint, or "
            f"initialise it anew."
        )


def write_cover(session: TokenSession, officer: Officer, cover: Cover) -> None:
    """Put a cover on the token in the place of an older one. Raises TokenError."""
    write_data(session, OFFICER_LABEL, officer.public_key, private=True, sync=sync_token)
    write_data(session, COVER_LABEL, officer.sign(cover), private=False, sync=sync_token)
