"""What the token says of its booklet: whose it is (the cover) and which officer vouches.

The cover is a public data object, so that it can be read without the PIN. The officer's
public key is a private one: it can be neither read nor replaced without the PIN, and so
the traveller's machine can tell a cover that was put in the place of hers.
"""

from carnet.errors import TokenError
from carnet.token.data import read_data, write_data
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import TokenSession
from carnet.wire.documents import Cover, verify_document
from carnet.wire.fault import WireError
from carnet.wire.keys import load_public_key
from carnet.wire.suites import P256
from provisioning.officer import Officer

COVER_LABEL = "carnet cover"
OFFICER_LABEL = "carnet officer"


def read_cover(session: TokenSession) -> Cover | None:
    """Return the cover if the officer whom the token names has signed it; None without one.

    Raises TokenError if the cover does not verify or was made for another token.
    """
    signed = read_data(session, COVER_LABEL, private=False)
    if signed is None:
        return None
    key = read_data(session, OFFICER_LABEL, private=True) or b""
    try:
        cover = verify_document(signed, Cover, load_public_key(key, P256))
    except WireError as error:
        raise TokenError(
            f"The cover of token {session.token.info.label} is not signed by the officer whom "
            f"the token names; somebody changed it, so initialise the token anew."
        ) from error
    _check_serial(session, cover)
    return cover


def check_owner(session: TokenSession, officer: Officer, user_id: str) -> Cover | None:
    """Return the cover of this user's token; None for a token that is nobody's yet.

    Raises TokenError if the token is another user's, under another officer, or holds
    pairs of which no cover says whose they are.
    """
    label = session.token.info.label
    named = read_data(session, OFFICER_LABEL, private=True)
    if named is not None and named != officer.public_key:
        raise TokenError(
            f"Token {label} is under another officer; let her mint, or initialise it anew."
        )
    cover = read_cover(session)
    if cover is None and OneTimeKeys(session).pairs():
        raise TokenError(f"Token {label} holds key pairs but no cover; burn them all first.")
    if cover is not None and cover.user_id != user_id:
        raise TokenError(
            f"Token {label} belongs to {cover.user_id}; take another one, or initialise it anew."
        )
    return cover


def write_cover(session: TokenSession, officer: Officer, cover: Cover) -> None:
    """Put a cover on the token in the place of an older one. Raises TokenError."""
    write_data(session, OFFICER_LABEL, officer.public_key, private=True)
    write_data(session, COVER_LABEL, officer.sign(cover), private=False)


def _check_serial(session: TokenSession, cover: Cover) -> None:
    info = session.token.info
    if cover.token_serial != info.serial:
        raise TokenError(
            f"The cover of token {info.label} was made for token {cover.token_serial}; "
            f"initialise the token anew."
        )
