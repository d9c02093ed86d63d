"""What makes the pairs of a batch, by who shall hold their private keys."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from carnet.errors import TokenCannotError
from carnet.token.session import TokenSession
from carnet.token.signing import SigningPairs, make_pending_key
from carnet.token.transport import WrappingKey, agree_transport
from carnet.wire.documents import BatchPair
from provisioning.choice import Choice

Renew = Callable[[], TokenSession]


@dataclass(frozen=True)
class End:
    """For whom a batch is."""

    host_key: bytes
    """The Host's key; DER SubjectPublicKeyInfo."""
    ephemeral_key: bytes | None
    """The token's half of the agreement on the wrapping key, where there is one."""


class Maker(Protocol):
    """Makes one pair after the other on the traveller's token."""

    ends: tuple[End, ...]
    """One for each batch."""

    def make(self, label: str, last_day: date | None) -> tuple[BatchPair, ...]:
        """Make a pair that is proved to serve; return it as each batch has it.

        Raises TokenError.
        """


class _PairedMaker:
    """Custody `paired`: each private key is wrapped for the Host too, for each of its HSMs."""

    def __init__(self, wrapping: list[WrappingKey], ends: tuple[End, ...], choice: Choice) -> None:
        self.ends = ends
        self._first, *self._others = wrapping
        self._choice = choice

    def make(self, label: str, last_day: date | None) -> tuple[BatchPair, ...]:
        """Make a pair, and wrap its private key."""
        type_, oaep = self._choice.type_, self._choice.oaep
        minted = self._first.mint_pair(label, last_day, type_, oaep, self._others)
        return tuple(
            BatchPair(label=label, public_key=minted.public_key, wrapped=wrapped)
            for wrapped in (minted.wrapped, *minted.wrapped_for_others)
        )


class _SplitMaker:
    """Custody `split`: the private key is the token's alone, and signs."""

    def __init__(
        self,
        session: TokenSession,
        host_key: bytes,
        choice: Choice,
        renew: Renew | None,
        used: int,
    ) -> None:
        self.ends: tuple[End, ...] = (End(host_key, None),)
        self._renew = renew
        self._type = choice.type_
        self._pairs = SigningPairs(session, self._type)
        self._used = used
        make_pending_key(session)

    def make(self, label: str, last_day: date | None) -> tuple[BatchPair, ...]:
        """Make a pair, in a new session where the old one makes no more."""
        try:
            public_key = self._pairs.mint(label, last_day)
        except TokenCannotError:
            if not self._used or self._renew is None:
                raise
            self._pairs = SigningPairs(self._renew(), self._type)
            self._used = 0
            public_key = self._pairs.mint(label, last_day)
        self._used += 1
        return (BatchPair(label=label, public_key=public_key, wrapped=None),)


@contextmanager
def paired_maker(
    session: TokenSession, transport_keys: tuple[bytes, ...], choice: Choice
) -> Iterator[Maker]:
    """Agree with the transport key of each of the Host's HSMs; raises TokenError."""
    with ExitStack() as closing:
        wrapping = [closing.enter_context(agree_transport(session, key)) for key in transport_keys]
        ends = tuple(
            End(key, own.ephemeral_public_key)
            for key, own in zip(transport_keys, wrapping, strict=True)
        )
        yield _PairedMaker(wrapping, ends, choice)


@contextmanager
def split_maker(
    session: TokenSession,
    sealing_key: bytes,
    choice: Choice,
    renew: Renew | None = None,
    used: int = 0,
) -> Iterator[Maker]:
    """Prepare for pairs whose requests go to this key of the Host; raises TokenError.

    `renew` begins a new session, for a token that makes no more pairs in this one, in which so
    many were `used` before.
    """
    yield _SplitMaker(session, sealing_key, choice, renew, used)
