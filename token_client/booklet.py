"""The booklet in the traveller's hand: her token, its cover and its key pairs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from carnet.cover import read_cover
from carnet.errors import TokenError, UsageError
from carnet.pin import Credential
from carnet.token.module import Token
from carnet.token.onetime import OneTimeKeys, OneTimePair
from carnet.token.session import TokenSession, open_session
from carnet.wire.documents import Cover
from carnet.wire.fault import WireError
from carnet.wire.suites import AnySuite, suite_of_key
from token_client.config import ClientConfig


@dataclass(frozen=True)
class Booklet:
    """An unlocked token whose cover was verified."""

    serial: str
    label: str
    cover: Cover
    keys: OneTimeKeys

    def suite_of(self, pair: OneTimePair) -> AnySuite:
        """Return the suite of a pair: by its key, and for an RSA key as the cover says.

        Raises TokenError if the cover does not say it.
        """
        try:
            return suite_of_key(pair.public_key, self.cover.suite)
        except WireError as error:
            raise TokenError(
                f"The cover does not say how key pair {pair.key_id.hex()} is used ({error}); "
                f"have the security officer mint anew, or get a newer Carnet."
            ) from error

    def usable(self) -> list[OneTimePair]:
        """Return the pairs in order of use that have not expired."""
        today = datetime.now(UTC).date()
        return [p for p in self.keys.pairs() if p.not_after is None or p.not_after >= today]


@contextmanager
def open_booklet(token: Token, credential: Credential, config: ClientConfig) -> Iterator[Booklet]:
    """Unlock a token and verify its cover.

    Raises TokenError: for the PIN, and for a cover that is missing, not the
    officer's, another token's or expired.
    """
    with open_session(
        token, credential.pin, writable=True, allow_final_try=credential.allow_final_try
    ) as session:
        info = token.info
        cover = _valid_cover(session, config)
        yield Booklet(info.serial, info.label, cover, OneTimeKeys(session))


def _valid_cover(session: TokenSession, config: ClientConfig) -> Cover:
    cover = read_cover(session, _pinned_key(config.officer) if config.officer else None)
    if cover is None:
        raise TokenError("The token has no cover; have the security officer mint its key pairs.")
    if cover.not_after is not None and cover.not_after <= time.time():
        raise TokenError("The booklet has expired; ask the security officer for a new one.")
    if cover.custody != "paired":
        raise TokenError(f"Custody {cover.custody} is not served by this version; get a newer one.")
    return cover


def _pinned_key(certificate: Path) -> bytes:
    try:
        key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"Cannot read the officer's certificate {certificate}; correct the path."
        ) from error
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
