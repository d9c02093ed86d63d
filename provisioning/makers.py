"""What makes the pairs of a batch, by who shall hold their private keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Protocol

from carnet.token.session import TokenSession
from carnet.token.signing import make_pending_key, mint_signing_pair
from carnet.token.transport import WrappingKey, agree_transport
from carnet.wire.documents import BatchPair
from provisioning.choice import Choice


class Maker(Protocol):
    """Makes one pair after the other on the traveller's token."""

    host_key: bytes
    """For which of the Host's keys they are; DER SubjectPublicKeyInfo."""
    ephemeral_key: bytes | None
    """The token's half of the agreement on the wrapping key, where there is one."""

    def make(self, label: str, last_day: date | None) -> BatchPair:
        """Make a pair that is proved to serve; raises TokenError."""


class _PairedMaker:
    """Custody `paired`: each private key is wrapped for the Host too."""

    def __init__(self, wrapping: WrappingKey, host_key: bytes, choice: Choice) -> None:
        self.host_key = host_key
        self.ephemeral_key: bytes | None = wrapping.ephemeral_public_key
        self._wrapping = wrapping
        self._choice = choice

    def make(self, label: str, last_day: date | None) -> BatchPair:
        """Make a pair, and wrap its private key."""
        choice = self._choice
        minted = self._wrapping.mint_pair(label, last_day, choice.type_, choice.oaep)
        return BatchPair(label=label, public_key=minted.public_key, wrapped=minted.wrapped)


class _SplitMaker:
    """Custody `split`: the private key is the token's alone, and signs."""

    ephemeral_key: bytes | None = None

    def __init__(self, session: TokenSession, host_key: bytes, choice: Choice) -> None:
        self.host_key = host_key
        self._session = session
        self._choice = choice
        make_pending_key(session)

    def make(self, label: str, last_day: date | None) -> BatchPair:
        """Make a pair."""
        public_key = mint_signing_pair(self._session, label, last_day, self._choice.type_)
        return BatchPair(label=label, public_key=public_key, wrapped=None)


@contextmanager
def paired_maker(session: TokenSession, transport_key: bytes, choice: Choice) -> Iterator[Maker]:
    """Agree with the Host's transport key; raises TokenError."""
    with agree_transport(session, transport_key) as wrapping:
        yield _PairedMaker(wrapping, transport_key, choice)


@contextmanager
def split_maker(session: TokenSession, sealing_key: bytes, choice: Choice) -> Iterator[Maker]:
    """Prepare for pairs whose requests go to this key of the Host; raises TokenError."""
    yield _SplitMaker(session, sealing_key, choice)
