"""What every key store does with a pair: takes it in, hands it out, burns it."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import ClassVar

from cryptography.hazmat.primitives import hashes

from carnet.token.session import TokenSession
from carnet.token.transport import UnwrappingKey
from carnet.wire.documents import BatchHead, BatchPair
from carnet.wire.keys import key_id_of
from carnet.wire.rsa_suite import RsaSuite
from carnet.wire.suites import find_suite
from host_agent.hsm import Hsm
from host_agent.keydb import Arrival, KeyDatabase, NewPair, PairRecord
from host_agent.keystore.halves import Half
from host_agent.store_name import KeyStoreName

_SIZE_OF_KEK_ID = 16


@dataclass(frozen=True)
class Intake:
    """A batch of custody `paired` that is being taken in; all of it was checked."""

    head: BatchHead
    session: TokenSession
    """In which the transport was agreed upon, and outside of which there is none."""
    serial: str
    """Of the HSM token."""
    transport: UnwrappingKey

    @property
    def last_day(self) -> date | None:
        """The pairs' last day of validity, UTC."""
        if self.head.not_after is None:
            return None
        return datetime.fromtimestamp(self.head.not_after, UTC).date()

    @property
    def oaep(self) -> hashes.HashAlgorithm | None:
        """The hash of OAEP that the pairs are for; None if they are not of RSA."""
        return oaep_of(self.head)

    def try_pair(self, pair: BatchPair) -> None:
        """Use a pair on the HSM as requests would; nothing of it stays.

        Raises TokenError if it is not what it says, TokenCannotError if the HSM lacks
        something for it.
        """
        self.transport.try_pair(id_of(pair), pair.public_key, wrapped_of(pair), self.oaep)


def oaep_of(head: BatchHead) -> hashes.HashAlgorithm | None:
    """Return the hash of OAEP that a batch's pairs are for; None if they are not of RSA."""
    suite = find_suite(head.suite)
    return suite.oaep if isinstance(suite, RsaSuite) else None


def kek_id_of(head: BatchHead) -> bytes:
    """Return what the batch's key-encryption key is known by: the two keys agreed upon."""
    agreed = head.host_transport_key + (head.ephemeral_key or b"")
    return hashlib.sha256(agreed).digest()[:_SIZE_OF_KEK_ID]


def id_of(pair: BatchPair) -> bytes:
    """Return a pair's key_id."""
    return key_id_of(pair.public_key)


def wrapped_of(pair: BatchPair) -> bytes:
    """Return the private key that comes with a pair: none in custody `split`."""
    return pair.wrapped or b""


class KeyStore(ABC):
    """One place for private keys; its methods raise TokenError if the HSM fails.

    A batch is taken in by begin(), for each portion of its pairs announce(), take() and
    burned_meanwhile(), then keep(), check_kept() in another session, record(), finish().
    """

    name: ClassVar[KeyStoreName]

    @abstractmethod
    def owes(self, head: BatchHead, database: KeyDatabase) -> bool:
        """Tell whether a batch of which all pairs are known wants something kept all the same."""

    @abstractmethod
    def begin(self, intake: Intake, database: KeyDatabase) -> None:
        """Write down that a batch is about to be on the HSM.

        Raises RefusedError if it cannot be kept here.
        """

    @abstractmethod
    def wanted(
        self, head: BatchHead, key_ids: Collection[bytes], database: KeyDatabase
    ) -> frozenset[bytes]:
        """Return which of these pairs of a batch the HSM shall take in."""

    @abstractmethod
    def announce(self, intake: Intake, pairs: Sequence[BatchPair], database: KeyDatabase) -> None:
        """Write down that these private keys are about to be on the HSM, where that matters."""

    @abstractmethod
    def take(self, intake: Intake, pair: BatchPair) -> None:
        """Take a new private key in, tried; TokenError if it is not what it says."""

    @abstractmethod
    def burned_meanwhile(
        self, intake: Intake, pairs: Sequence[BatchPair], database: KeyDatabase
    ) -> Sequence[BatchPair]:
        """Return those that were burned while they were taken in, and are on the HSM again.

        That they may be there is written down first.
        """

    @abstractmethod
    def undo(self, intake: Intake, pair: BatchPair) -> None:
        """Have the HSM hold nothing of a pair that was just taken in."""

    @abstractmethod
    def keep(self, intake: Intake, one: BatchPair) -> None:
        """Keep what all pairs of the batch need; `one` is any of them, to try it with."""

    @abstractmethod
    def check_kept(
        self, head: BatchHead, one: BatchPair, key_ids: list[bytes], session: TokenSession
    ) -> None:
        """Raise TokenError unless the HSM, in a new session, has kept what was taken in."""

    @abstractmethod
    def record(
        self,
        head: BatchHead,
        pairs: Iterable[tuple[NewPair, bytes]],
        database: KeyDatabase,
        arrival: Arrival,
    ) -> int:
        """Take pairs, each with its wrapped key, into the Key Database as valid, all or none.

        Returns how many were new.
        """

    def finish(self, head: BatchHead, database: KeyDatabase) -> None:
        """Write down that all of the batch is taken in."""
        database.finish_batch_key(kek_id_of(head))

    @abstractmethod
    async def half_of(self, database: KeyDatabase, pair: PairRecord) -> Half:
        """Return Host's half of a pair."""

    @abstractmethod
    async def burn(self, database: KeyDatabase, hsm: Hsm, key_id: bytes) -> None:
        """Step 10: destroy a pair's private key, and write down that it is gone."""
