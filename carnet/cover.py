"""The cover on a token: which of the objects that claim to be it is the officer's word.

It is a public data object, so that it can be read without the PIN; anybody who holds
the token can put others beside it, or destroy it. The officer's public key is a private
one: it can be neither read nor replaced without the PIN. So what counts is the newest
cover that verifies under that key and names this very token.
"""

from carnet.errors import TokenError
from carnet.token.data import read_all_data, read_data
from carnet.token.session import TokenSession
from carnet.wire.documents import Cover, read_unverified, verify_document
from carnet.wire.fault import Fault, WireError
from carnet.wire.keys import load_public_key
from carnet.wire.suites import P256

COVER_LABEL = "carnet cover"
OFFICER_LABEL = "carnet officer"
"""Label of the private data object that holds the officer's public key (DER SPKI)."""


def read_cover(session: TokenSession, officer_key: bytes | None = None) -> Cover | None:
    """Return the token's cover; None where nothing claims to be one.

    It is verified under the officer's key that the token itself names, or under the
    one given. Raises TokenError if none of those that claim to be the cover verifies.
    """
    claims = read_all_data(session, COVER_LABEL, private=False)
    if not claims:
        return None
    key = officer_key or read_data(session, OFFICER_LABEL, private=True) or b""
    covers: list[Cover] = []
    reasons: list[str] = []
    for signed in claims:
        try:
            covers.append(_verify(signed, key, session.token.info.serial))
        except WireError as error:
            reasons.append(str(error))
    if not covers:
        raise TokenError(
            f"The cover of token {session.token.info.label} is not what its security officer "
            f"signed for it ({'; '.join(reasons)}); do not use the token, and tell her."
        )
    return max(covers, key=lambda cover: cover.issued_at)


def read_unverified_cover(session: TokenSession) -> Cover | None:
    """Return what the token claims of itself, to be shown and never relied upon."""
    for signed in read_all_data(session, COVER_LABEL, private=False):
        try:
            return read_unverified(signed, Cover)
        except WireError:
            continue
    return None


def _verify(signed: bytes, officer_key: bytes, serial: str) -> Cover:
    cover = verify_document(signed, Cover, load_public_key(officer_key, P256))
    if cover.token_serial != serial:
        raise WireError(Fault.BINDING, f"made for token {cover.token_serial}")
    return cover
