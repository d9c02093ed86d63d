"""The cover on a token: which of the objects that claim to be it is the officer's word.

It is a public data object, so that it can be read without the PIN; anybody who holds
the token can put others beside it, or destroy it. The officer's public key is a private
one: it can be neither read nor replaced without the PIN. So what counts is the newest
cover that verifies under that key and names this very token.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from carnet.errors import TokenError
from carnet.token import keys
from carnet.token.data import read_all_data, read_data
from carnet.token.onetime import OneTimePair
from carnet.token.session import TokenSession
from carnet.wire.cover_file import unpack_cover_file
from carnet.wire.documents import Batch, Cover, read_unverified, verify_document
from carnet.wire.envelope import SPLIT
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


class CoverFile(msgspec.Struct, frozen=True):
    """The cover of a token that takes no data objects, and which of its keys are pairs."""

    cover: Cover
    pairs: tuple[OneTimePair, ...]


def read_cover_file(data: bytes, officer_key: bytes, serial: str) -> CoverFile:
    """Return what a cover file says of the token with this serial number.

    Raises TokenError unless the officer signed all of it, for this token, in custody
    `split`: a batch in the other one holds keys that no card here has.
    """
    try:
        signed, batches = unpack_cover_file(data)
        key = load_public_key(officer_key, P256)
        cover = _verify(signed, officer_key, serial)
        pairs = [pair for each in batches for pair in _pairs_of(each, key, cover)]
    except WireError as error:
        raise TokenError(
            f"The cover file is not what the security officer signed for this token ({error}); get "
            f"it from her again."
        ) from error
    return CoverFile(cover, tuple(pairs))


def shown_cover_file(data: bytes) -> CoverFile | None:
    """Return what a cover file claims, to be shown and never relied upon."""
    try:
        signed, batches = unpack_cover_file(data)
        read = [read_unverified(each, Batch) for each in batches]
        cover = read_unverified(signed, Cover)
        return CoverFile(cover, tuple(pair for each in read for pair in _listed(each)))
    except WireError:
        return None


def _pairs_of(
    signed: bytes, officer_key: ec.EllipticCurvePublicKey, cover: Cover
) -> Iterator[OneTimePair]:
    batch = verify_document(signed, Batch, officer_key)
    whose = (batch.user_id, batch.token_serial, batch.custody)
    if whose != (cover.user_id, cover.token_serial, SPLIT) or cover.custody != SPLIT:
        raise WireError(Fault.BINDING, "a batch that is not of this cover")
    yield from _listed(batch)


def _listed(batch: Batch) -> Iterator[OneTimePair]:
    until = batch.not_after
    last_day = None if until is None else datetime.fromtimestamp(until, UTC).date()
    for pair in batch.pairs:
        try:
            type_, _ = keys.type_and_key(pair.public_key)
        except ValueError:
            raise WireError(Fault.FIELD, "not a public key of a pair") from None
        yield OneTimePair(
            key_id=keys.key_id(pair.public_key),
            label=pair.label,
            public_key=pair.public_key,
            key_type=type_.name,
            not_after=last_day,
        )


def _verify(signed: bytes, officer_key: bytes, serial: str) -> Cover:
    cover = verify_document(signed, Cover, load_public_key(officer_key, P256))
    if cover.token_serial != serial:
        raise WireError(Fault.BINDING, f"made for token {cover.token_serial}")
    return cover
