"""The pending request: what the next `carnet connect` needs to send the same bytes again.

Kept in memory only, sealed to the pair itself: whoever finds it needs the token and
its PIN to open it. With it is kept which pairs were set aside.
"""

import hashlib
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from carnet.errors import TokenError
from carnet.files import write_private
from carnet.token.onetime import OneTimeKeys, OneTimePair
from carnet.wire import cbor
from carnet.wire.fault import WireError
from carnet.wire.fields import KeyId, Message
from carnet.wire.keys import load_public_key
from carnet.wire.session_key import EphemeralKey
from carnet.wire.suites import AnySuite

KEPT_SECONDS = 600
"""For as long as Host keeps an answer; after that the same bytes lead nowhere."""
_MAX_ASIDE = 1024 * 1024
_MAX_PENDING = 2 * cbor.MAX_MESSAGE
"""A request of any size, with what is kept around it."""

SuiteOf = Callable[[OneTimePair], AnySuite]
"""Which suite a pair is of; raises TokenError where that is not to be known."""


@dataclass(frozen=True)
class Pending:
    """A request that was sent and not settled."""

    key_id: bytes
    sealed: bytes
    ephemeral: EphemeralKey
    age: int = 0
    """Seconds since it was kept."""


class _Inside(Message, frozen=True, kw_only=True):
    request: bytes
    ephemeral_secret: bytes
    kept_at: int
    """Seconds since boot."""


class _Outside(Message, frozen=True, kw_only=True):
    key_id: KeyId
    sealed: bytes


class _Aside(Message, frozen=True, kw_only=True):
    key_ids: tuple[KeyId, ...]


class PendingStore:
    """What is kept of one token's exchanges, in one directory in memory, if there is one."""

    def __init__(self, directory: Path | None, serial: str) -> None:
        name = hashlib.sha256(serial.encode()).hexdigest()[:16]
        self._pending = directory / f"pending-{name}" if directory else None
        self._aside = directory / f"aside-{name}" if directory else None

    def keep(self, pending: Pending, public_key: bytes, suite: AnySuite) -> None:
        """Keep a request, sealed to its pair."""
        if self._pending is None:
            return
        inside = _Inside(
            request=pending.sealed, ephemeral_secret=pending.ephemeral.secret, kept_at=_now()
        )
        key = load_public_key(public_key, suite)
        sealed = suite.seal(cbor.pack(inside), key, _info(pending.key_id))
        outside = _Outside(key_id=pending.key_id, sealed=sealed)
        write_private(self._pending, cbor.pack(outside))

    def find(self, keys: OneTimeKeys, suite_of: SuiteOf) -> Pending | None:
        """Return the request that is kept; None if there is none, or it is too old to use."""
        if self._pending is None or not self._pending.exists():
            return None
        try:
            outside = cbor.unpack(self._pending.read_bytes(), _Outside, _MAX_PENDING)
            inside = _open(outside, keys, suite_of)
            ephemeral = EphemeralKey(inside.ephemeral_secret)
        except (WireError, TokenError, ValueError):
            # Not ours, or its pair is gone: nothing that could be gone on with.
            self.drop()
            return None
        age = _now() - inside.kept_at
        if not 0 <= age < KEPT_SECONDS:
            self.set_aside(outside.key_id)
            self.drop()
            return None
        return Pending(outside.key_id, inside.request, ephemeral, age)

    def drop(self) -> None:
        """Forget the request."""
        if self._pending is not None:
            self._pending.unlink(missing_ok=True)

    def aside(self) -> frozenset[bytes]:
        """Return the pairs that were set aside."""
        if self._aside is None or not self._aside.exists():
            return frozenset()
        try:
            aside = cbor.unpack(self._aside.read_bytes(), _Aside, _MAX_ASIDE)
        except WireError:
            return frozenset()
        return frozenset(aside.key_ids)

    def set_aside(self, key_id: bytes) -> None:
        """Take another pair before this one, until the Host says what it is."""
        self._write_aside(self.aside() | {key_id})

    def leave_aside(self, key_ids: AbstractSet[bytes]) -> None:
        """Leave no others set aside than these: the Host has said which pairs are invalid."""
        if key_ids:
            self._write_aside(key_ids)
        elif self._aside is not None:
            self._aside.unlink(missing_ok=True)

    def _write_aside(self, key_ids: AbstractSet[bytes]) -> None:
        if self._aside is not None:
            write_private(self._aside, cbor.pack(_Aside(key_ids=tuple(sorted(key_ids)))))


def _open(outside: _Outside, keys: OneTimeKeys, suite_of: SuiteOf) -> _Inside:
    """Open on the token what was kept; WireError or TokenError where it cannot be."""
    key = keys.private_key(outside.key_id)
    suite = suite_of(key.pair)
    public_key = load_public_key(key.pair.public_key, suite)
    inside = suite.open_sealed(outside.sealed, public_key, key, _info(outside.key_id))
    return cbor.unpack(inside, _Inside, _MAX_PENDING)


def _info(key_id: bytes) -> bytes:
    return cbor.encode(["carnet", 1, "pending", key_id])


def _now() -> int:
    """Return seconds since boot, sleep included; the wall clock of a strange machine may jump."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))
