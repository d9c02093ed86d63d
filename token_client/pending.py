"""The pending request: what the next `carnet connect` needs to send the same bytes again.

Kept in memory only, sealed to a key of the token: whoever finds it needs the token and
its PIN to open it. Where the token has no such key nothing is kept. There is one of a token
for each Target, and while it is of use its pair is neither taken for another request nor
destroyed: without the pair nothing opens the answer. With it is kept which pairs were set aside.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from carnet.errors import TokenAwayError, TokenError
from carnet.files import write_private
from carnet.token.identity import Identity
from carnet.wire import cbor
from carnet.wire.fault import WireError
from carnet.wire.fields import KeyId, Message
from carnet.wire.session_key import EphemeralKey
from token_client.vault import Vault

KEPT_SECONDS = 600
"""For as long as Host keeps an answer; after that the same bytes lead nowhere."""
_MAX_ASIDE = 1024 * 1024
_MAX_PENDING = 3 * cbor.MAX_MESSAGE
"""A request of any size, what was signed of it, and what is kept around them."""


class Pending(msgspec.Struct, frozen=True):
    """A request that was sent and not settled."""

    key_id: bytes
    sealed: bytes
    ephemeral: EphemeralKey
    evidence: bytes = b""
    """In custody `split`, what was signed: the Client cannot open what it sent."""
    age: int = 0
    """Seconds since it was kept."""


class _Inside(Message, frozen=True, kw_only=True):
    request: bytes
    evidence: bytes
    ephemeral_secret: bytes


class _Outside(Message, frozen=True, kw_only=True):
    key_id: KeyId
    target: str
    kept_at: int
    """Seconds since boot."""
    sealed: bytes

    @property
    def is_of_use(self) -> bool:
        return 0 <= self.age < KEPT_SECONDS

    @property
    def age(self) -> int:
        return _now() - self.kept_at


class _Former(Message, frozen=True, kw_only=True):
    """What a version before kept, of one request for whichever Target."""

    key_id: KeyId
    sealed: bytes


class Elsewhere(msgspec.Struct, frozen=True):
    """A request of the same token's for another Target, which can still be gone on with."""

    target: str
    seconds: int
    """For how long still."""


class _Aside(Message, frozen=True, kw_only=True):
    key_ids: tuple[KeyId, ...]


class PendingStore:
    """What is kept of one token's exchanges, in one directory in memory, if there is one.

    The request is the one for this Target.
    """

    def __init__(self, directory: Path | None, token: Identity, vault: Vault, target: str) -> None:
        self._vault = vault
        self._target = target
        self._former = every = _path(directory, "pending", token)
        self._pending = every and every.with_name(f"{every.name}-{_mark(target)}")
        self._aside = _path(directory, "aside", token)
        self._spent = _path(directory, "spent", token)
        self.unreadable: frozenset[bytes] | None = None
        """What find() dropped as it could not be read, by its pair where that can; else None."""

    def keep(self, pending: Pending) -> bool:
        """Keep a request for the next run; False where there is no place, or no key for it."""
        if self._pending is None:
            return False
        inside = _Inside(
            request=pending.sealed,
            evidence=pending.evidence,
            ephemeral_secret=pending.ephemeral.secret,
        )
        outside = _Outside(key_id=pending.key_id, target=self._target, kept_at=_now(), sealed=b"")
        sealed = self._vault.seal(outside.key_id, cbor.pack(inside), _info(outside))
        if sealed is None:
            return False
        write_private(self._pending, cbor.pack(replace(outside, sealed=sealed)))
        return True

    def find(self) -> Pending | None:
        """Return the request that is kept; None if there is none, or it is too old to use.

        Raises TokenAwayError: what only the token opens stays for the next run.
        """
        self._drop_former()
        if self._pending is None or not self._pending.exists():
            return None
        pairs: frozenset[bytes] = frozenset()
        try:
            outside = _read(self._pending)
            pairs = frozenset({outside.key_id})
            inside = self._open(outside)
            ephemeral = EphemeralKey(inside.ephemeral_secret)
        except TokenAwayError:
            raise  # it may come back, and then this is of use
        except (WireError, TokenError, ValueError):
            # Not ours, or its pair is gone: nothing that could be gone on with.
            self.unreadable = pairs
            self.drop()
            return None
        if not outside.is_of_use:
            self._let_go(self._pending, outside)
            return None
        return Pending(outside.key_id, inside.request, ephemeral, inside.evidence, outside.age)

    def _drop_former(self) -> None:
        """Drop what a version before kept: this one cannot say for which Target that was."""
        if self._former is None or not self._former.exists():
            return
        self.unreadable = frozenset()
        with suppress(WireError):
            key_id = cbor.unpack(self._former.read_bytes(), _Former, _MAX_PENDING).key_id
            self.unreadable = frozenset({key_id})
            self.set_aside(key_id)
        self._former.unlink()

    def _open(self, outside: _Outside) -> _Inside:
        """Open on the token what was kept; WireError or TokenError where it cannot be."""
        inside = self._vault.open(outside.key_id, outside.sealed, _info(outside))
        return cbor.unpack(inside, _Inside, _MAX_PENDING)

    def elsewhere(self) -> dict[bytes, Elsewhere]:
        """Return what is kept for other Targets, by the pair; what is too old is let go."""
        found = {}
        for path, outside in self._others():
            if outside.is_of_use:
                left = KEPT_SECONDS - outside.age
                found[outside.key_id] = Elsewhere(outside.target, left)
            else:
                self._let_go(path, outside)
        return found

    def _others(self) -> Iterator[tuple[Path, _Outside]]:
        return (each for each in _kept(self._former) if each[0] != self._pending)

    def _let_go(self, path: Path, outside: _Outside) -> None:
        """Forget what is too old to use; its pair may be spent."""
        self.set_aside(outside.key_id)
        path.unlink(missing_ok=True)

    def drop(self) -> None:
        """Forget the request."""
        if self._pending is not None:
            self._pending.unlink(missing_ok=True)

    def aside(self) -> tuple[bytes, ...]:
        """Return the pairs that were set aside, the one that was longest ago first."""
        return _read_names(self._aside)

    def spent(self) -> frozenset[bytes]:
        """Return the pairs that are spent and still on a token which destroys nothing."""
        return frozenset(_read_names(self._spent))

    def remember_spent(self, key_id: bytes) -> None:
        """Pass over a pair from now on, as long as this machine runs."""
        _write_names(self._spent, sorted(self.spent() | {key_id}))

    def set_aside(self, key_id: bytes) -> None:
        """Take every other pair before this one, until the Host says what it is."""
        others = (each for each in self.aside() if each != key_id)
        _write_names(self._aside, (*others, key_id))

    def leave_aside(self, key_ids: AbstractSet[bytes]) -> None:
        """Leave no others set aside than these: the Host has said which pairs are invalid."""
        if key_ids:
            _write_names(self._aside, sorted(key_ids))
        elif self._aside is not None:
            self._aside.unlink(missing_ok=True)


def spent_here(directory: Path | None, token: Identity) -> frozenset[bytes]:
    """Return the pairs of a token that this machine knows to be spent, without its PIN."""
    return frozenset(_read_names(_path(directory, "spent", token)))


def asked_with_here(
    directory: Path | None, token: Identity, target: str | None = None
) -> frozenset[bytes]:
    """Return the pairs of a token that are not for a new request, without its PIN.

    Under each a Target was asked, another than `target`, and its answer may still be gone on with.
    """
    kept = (outside for _, outside in _kept(_path(directory, "pending", token)))
    return frozenset(each.key_id for each in kept if each.is_of_use and each.target != target)


def _kept(of_this_token: Path | None) -> Iterator[tuple[Path, _Outside]]:
    if of_this_token is None:
        return
    for path in sorted(of_this_token.parent.glob(f"{of_this_token.name}-*")):
        with suppress(OSError, WireError):  # whoever asks that Target is told
            yield path, _read(path)


def _path(directory: Path | None, what: str, token: Identity) -> Path | None:
    return directory / f"{what}-{token.mark}" if directory else None


def _mark(target: str) -> str:
    """Return what the name of a file has in it that is for a Target, whatever that is called."""
    return hashlib.sha256(target.encode()).hexdigest()[:16]


def _read(path: Path) -> _Outside:
    return cbor.unpack(path.read_bytes(), _Outside, _MAX_PENDING)


def _read_names(path: Path | None) -> tuple[bytes, ...]:
    if path is None or not path.exists():
        return ()
    try:
        return cbor.unpack(path.read_bytes(), _Aside, _MAX_ASIDE).key_ids
    except WireError:
        return ()


def _write_names(path: Path | None, key_ids: Iterable[bytes]) -> None:
    if path is not None:
        write_private(path, cbor.pack(_Aside(key_ids=tuple(key_ids))))


def _info(outside: _Outside) -> bytes:
    its = outside.key_id, outside.target, outside.kept_at
    return cbor.encode(["carnet", 1, "pending", *its])


def _now() -> int:
    """Return seconds since boot, sleep included; the wall clock of a strange machine may jump."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME))
