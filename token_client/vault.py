"""Under which key of the token the pending request is kept: only the token opens it again.

In custody `paired` that is the pair itself. In custody `split` a pair only signs; so it
is a key of the token that agrees and does nothing else, where the token has one. Where it
has none, nothing is kept: what could be opened without the token must not lie about on a
strange machine.
"""

from collections.abc import Callable
from typing import Protocol

from carnet.errors import TokenError
from carnet.token.onetime import OneTimeKeys, OneTimePair
from carnet.token.signing import PendingKey
from carnet.wire import hpke
from carnet.wire.keys import load_public_key
from carnet.wire.suites import P256, AnySuite

SuiteOf = Callable[[OneTimePair], AnySuite]
"""Which suite a pair is of; raises TokenError where that is not to be known."""


class Vault(Protocol):
    """What seals for the token alone."""

    def seal(self, key_id: bytes, plaintext: bytes, info: bytes) -> bytes | None:
        """Return what only the token opens, and only while it has the pair; None if nothing can.

        Raises TokenError.
        """

    def open(self, key_id: bytes, sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed; raises WireError, TokenError where it does not open."""


class PairVault:
    """Seals to the one-time pair that the request is of."""

    def __init__(self, keys: OneTimeKeys, suite_of: SuiteOf) -> None:
        self._keys = keys
        self._suite_of = suite_of

    def seal(self, key_id: bytes, plaintext: bytes, info: bytes) -> bytes:
        """Seal as the pair's suite does."""
        pair = self._keys.private_key(key_id).pair
        suite = self._suite_of(pair)
        return suite.seal(plaintext, load_public_key(pair.public_key, suite), info)

    def open(self, key_id: bytes, sealed: bytes, info: bytes) -> bytes:
        """Open on the token."""
        key = self._keys.private_key(key_id)
        suite = self._suite_of(key.pair)
        public_key = load_public_key(key.pair.public_key, suite)
        return suite.open_sealed(sealed, public_key, key, info)


class TokenVault:
    """Seals to a key of the token's own, if it has one."""

    def __init__(self, keys: OneTimeKeys, own: PendingKey | None) -> None:
        self._keys = keys
        self._own = own

    def seal(self, key_id: bytes, plaintext: bytes, info: bytes) -> bytes | None:
        """Seal as suite 1 does; None where the token has no key that could open it."""
        self._keys.private_key(key_id)
        if self._own is None:
            return None
        return P256.seal(plaintext, load_public_key(self._own.public_key, P256), info)

    def open(self, key_id: bytes, sealed: bytes, info: bytes) -> bytes:
        """Open on the token, as long as it has the pair."""
        if self._own is None:
            raise TokenError("The token has no key that opens what was kept; connect anew.")
        self._keys.private_key(key_id)
        public_key = load_public_key(self._own.public_key, P256)
        return hpke.open_sealed(sealed, public_key, self._own.agree, info, P256.kem)
