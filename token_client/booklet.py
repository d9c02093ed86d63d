"""The booklet in the traveller's hand: her token, its cover and its key pairs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization

from carnet.cover import (
    COVER_LABEL,
    OFFICER_LABEL,
    CoverFile,
    read_cover,
    read_cover_file,
    shown_cover_file,
)
from carnet.errors import NoKeyPairLeftError, TokenError, UsageError
from carnet.files import read_small
from carnet.pin import Credential, say_if_at_pad
from carnet.serials import is_own
from carnet.token.adopted import AdoptedKeys
from carnet.token.data import read_all_data, read_data
from carnet.token.identity import Identity
from carnet.token.module import Token, TokenInfo
from carnet.token.onetime import OneTimeKeys, OneTimePair
from carnet.token.session import TokenSession, open_public_session, open_session
from carnet.token.shown import public_keys
from carnet.token.signing import find_pending_key
from carnet.wire.cover_file import MAX_COVER_FILE, unpack_cover_file
from carnet.wire.documents import Cover, read_unverified
from carnet.wire.envelope import SPLIT
from carnet.wire.fault import WireError
from carnet.wire.split import choose_host_keys
from carnet.wire.suites import AnySuite, suite_of_key
from token_client.config import ClientConfig
from token_client.custody import Messages, PairedMessages, SplitMessages
from token_client.vault import PairVault, TokenVault, Vault

UNNAMED_OFFICER = (
    "The token does not say who its security officer is; name her certificate with --officer."
)


class Booklet(msgspec.Struct, frozen=True):
    """An unlocked token whose cover was verified."""

    token: Identity
    cover: Cover
    keys: OneTimeKeys
    officer_key: bytes
    """The key (DER SPKI) under which the cover was verified; it certifies Targets, too."""
    vault: Vault
    """Where the pending request is kept under."""
    cover_file: Path | None = None
    """Where the cover is, unless it is on the token."""

    def messages_of(self, pair: OneTimePair) -> Messages:
        """Return how this pair's messages are made and read; raises TokenError."""
        suite, key = self.suite_of(pair), self.keys.private_key(pair.key_id)
        if self.cover.custody != SPLIT:
            return PairedMessages(pair, suite, key)
        try:
            host_keys = choose_host_keys(self.cover.host_keys, suite)
        except WireError as error:
            raise TokenError(
                f"The cover has no key of the Host for key pair {pair.key_id.hex()} ({error}); "
                f"have the security officer mint anew."
            ) from error
        return SplitMessages(pair, suite, key, host_keys)

    def suite_of(self, pair: OneTimePair) -> AnySuite:
        """Return the suite of a pair; raises TokenError if the cover does not say it."""
        return _suite_of(self.cover, pair)

    def empty(self) -> NoKeyPairLeftError:
        """Return what there is to say where no pair is usable.

        A cover file may be that of another token, whose serial number is the same.
        """
        if self.cover_file and not self.keys.pairs() and not is_own(self.token.serial):
            return _none_here(self.cover_file, self.token.label)
        return NoKeyPairLeftError(
            f"No usable key pair is left on token {self.token.label}; "
            f"ask the security officer for a new booklet."
        )

    def usable(self) -> list[OneTimePair]:
        """Return the pairs in order of use that have not expired."""
        today = datetime.now(UTC).date()
        return [p for p in self.keys.pairs() if p.not_after is None or p.not_after >= today]


def _suite_of(cover: Cover, pair: OneTimePair) -> AnySuite:
    """Return the suite of a pair: by its key, and for an RSA key as the cover says."""
    try:
        return suite_of_key(pair.public_key, cover.suite)
    except WireError as error:
        raise TokenError(
            f"The cover does not say how key pair {pair.key_id.hex()} is used ({error}); "
            f"have the security officer mint anew, or get a newer Carnet."
        ) from error


def check_cover(token: Token, config: ClientConfig) -> None:
    """Raise TokenError for a token without a cover: it may be a stranger's, and so is its PIN.

    Whose word a cover is can only be told once the token is unlocked. Raises
    NoKeyPairLeftError where a cover file is seen to be that of other key pairs.
    """
    info = token.info
    if config.cover is not None:
        _check_file(config.cover, info)
        if not is_own(info.serial):
            _check_keys_shown(config.cover, token)
        return
    with open_public_session(token) as session:
        if not read_all_data(session, COVER_LABEL, private=False):
            raise _uncovered(info)


def _check_file(path: Path, info: TokenInfo) -> None:
    try:
        serial = read_unverified(unpack_cover_file(read_cover_bytes(path))[0], Cover).token_serial
    except WireError as error:
        raise TokenError(
            f"{path} is no cover, or was changed ({error}); get it from the security officer again."
        ) from error
    if serial != info.serial:
        raise TokenError(
            f"{path} is the cover of token {serial}, not of {info.label} (serial {info.serial}); "
            f"plug in the token that it was made for, or name another file with --cover."
        )


def _check_keys_shown(path: Path, token: Token) -> None:
    """Raise NoKeyPairLeftError where the token shows its keys, and none is of the cover."""
    file = shown_cover_file(read_cover_bytes(path))
    if file is None:
        return  # it was changed, which its signatures say
    covered = {pair.public_key for pair in file.pairs}
    with open_public_session(token) as session:
        shown = public_keys(session, long_term=False)
    if shown and covered.isdisjoint(shown):
        raise _none_here(path, token.info.label)


def _none_here(path: Path, label: str) -> NoKeyPairLeftError:
    return NoKeyPairLeftError(
        f"{path} is the cover of key pairs of which none is on token {label}; name another "
        f"file with --cover, or ask the security officer for a new booklet where all were used."
    )


def _uncovered(info: TokenInfo) -> TokenError:
    return TokenError(
        f"Token {info.label} (serial {info.serial}) has no cover; plug in the one that is yours, "
        f"have the security officer mint key pairs on this one, or name the file that she gave "
        f"you with --cover."
    )


@contextmanager
def open_booklet(token: Token, credential: Credential, config: ClientConfig) -> Iterator[Booklet]:
    """Unlock a token and verify its cover.

    Raises TokenError: for the PIN, and for a cover that is missing, not the
    officer's, another token's or expired.
    """
    say_if_at_pad(credential.pin, token.info.label)
    with open_session(
        token, credential.pin, writable=True, allow_final_try=credential.allow_final_try
    ) as session:
        officer_key = _officer_key(session, config)
        cover, keys = _open(session, config, officer_key)
        vault: Vault = TokenVault(keys, find_pending_key(session))
        if cover.custody != SPLIT:
            vault = PairVault(keys, partial(_suite_of, cover))
        yield Booklet(token.info.identity, cover, keys, officer_key or b"", vault, config.cover)


def _officer_key(session: TokenSession, config: ClientConfig) -> bytes | None:
    """Return the officer's public key: the one that is pinned, else the token's own."""
    return pinned_key(config) or read_data(session, OFFICER_LABEL, private=True)


def _open(
    session: TokenSession, config: ClientConfig, officer_key: bytes | None
) -> tuple[Cover, OneTimeKeys]:
    """Return the cover, on the token or in a file, and the pairs that it is the cover of."""
    if config.cover is not None:
        file = _read_file(config.cover, session, officer_key)
        return _in_time(file.cover), AdoptedKeys(session, file.pairs)
    cover = read_cover(session, officer_key)
    if cover is None:
        raise _uncovered(session.token.info)
    return _in_time(cover), OneTimeKeys(session)


def _read_file(path: Path, session: TokenSession, officer_key: bytes | None) -> CoverFile:
    if officer_key is None:
        raise UsageError(UNNAMED_OFFICER)
    return read_cover_file(read_cover_bytes(path), officer_key, session.token.info.serial)


def read_cover_bytes(path: Path) -> bytes:
    """Return what stands in a cover file; raises UsageError."""
    try:
        return read_small(path, MAX_COVER_FILE, again=True)
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}); correct the path.") from error


def _in_time(cover: Cover) -> Cover:
    if cover.not_after is not None and cover.not_after <= time.time():
        raise TokenError("The booklet has expired; ask the security officer for a new one.")
    return cover


def pinned_key(config: ClientConfig) -> bytes | None:
    """Return the key of the officer's certificate that the configuration names, if it does.

    Raises UsageError.
    """
    certificate = config.officer
    if certificate is None:
        return None
    from cryptography import x509  # noqa: PLC0415  takes long, and few configurations name one

    try:
        key = x509.load_pem_x509_certificate(read_small(certificate, again=True)).public_key()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"Cannot read the officer's certificate {certificate}; correct the path."
        ) from error
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
