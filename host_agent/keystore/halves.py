"""Host's half of one pair, as it is taken hold of for one operation on the HSM."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from carnet.errors import TokenError
from carnet.token.batch_keys import BatchKeys
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import TokenSession
from carnet.wire.suite import PrivateKey
from host_agent.keydb.records import WrappedKey


@dataclass(frozen=True)
class HeldKeys:
    """What is on the HSM, as one login found it; not to be kept longer than that."""

    serial: str
    """Of the token."""
    session: TokenSession
    pairs: OneTimeKeys
    batches: BatchKeys


class Half(ABC):
    """The private key of a pair, wherever it is kept."""

    @abstractmethod
    def opened(self, held: HeldKeys) -> AbstractContextManager[PrivateKey]:
        """Have it on the HSM for one operation; raises TokenError if it cannot be had."""


@dataclass(frozen=True)
class OnToken(Half):
    """An object of its own on the HSM."""

    key_id: bytes

    def opened(self, held: HeldKeys) -> AbstractContextManager[PrivateKey]:
        """Return it as it stands there."""
        return nullcontext(held.pairs.private_key(self.key_id))


@dataclass(frozen=True)
class InDatabase(Half):
    """Wrapped in the Key Database, once for each key-encryption key that it is under."""

    key_id: bytes
    public_key: bytes
    copies: list[WrappedKey]

    @contextmanager
    def opened(self, held: HeldKeys) -> Iterator[PrivateKey]:
        """Unwrap it into a session object, which is destroyed at the end."""
        if not self.copies:
            raise TokenError(
                f"The private key of pair {self.key_id.hex()} is destroyed; use another pair."
            )
        one = self._under_a_key_of(held.batches)
        with held.batches.unwrapped(one.kek_id, self.key_id, self.public_key, one.wrapped) as key:
            yield key

    def _under_a_key_of(self, batches: BatchKeys) -> WrappedKey:
        for tell in (batches.knows, batches.holds):
            for one in self.copies:
                if tell(one.kek_id):
                    return one
        return self.copies[0]
