"""What every key store does with a pair: takes it in, hands it out, burns it."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import ClassVar

from cryptography.hazmat.primitives import hashes

from carnet.token.session import TokenSession
from carnet.token.transport import UnwrappingKey
from carnet.wire.documents import Batch, BatchPair
from carnet.wire.keys import key_id_of
from carnet.wire.rsa_suite import RsaSuite
from carnet.wire.suites import find_suite
from host_agent.hsm import Hsm
from host_agent.keydb import KeyDatabase, NewPair, PairRecord
from host_agent.keystore.halves import Half
from host_agent.store_name import KeyStoreName

_SIZE_OF_KEK_ID = 16


@dataclass(frozen=True)
class Intake:
    """A batch of custody `paired` that is being taken in; all of it was checked."""

    batch: Batch
    new: list[BatchPair]
    """Those of its pairs that the Key Database does not know, each with a private key."""
    session: TokenSession
    database: KeyDatabase
    transport: UnwrappingKey

    @property
    def last_day(self) -> date | None:
        """The pairs' last day of validity, UTC."""
        if self.batch.not_after is None:
            return None
        return datetime.fromtimestamp(self.batch.not_after, UTC).date()


def oaep_of(batch: Batch) -> hashes.HashAlgorithm | None:
    """Return the hash of OAEP that the batch's pairs are for; None if they are not of RSA."""
    suite = find_suite(batch.suite)
    return suite.oaep if isinstance(suite, RsaSuite) else None


def kek_id_of(batch: Batch) -> bytes:
    """Return what the batch's key-encryption key is known by: the two keys agreed upon."""
    agreed = batch.host_transport_key + (batch.ephemeral_key or b"")
    return hashlib.sha256(agreed).digest()[:_SIZE_OF_KEK_ID]


def id_of(pair: BatchPair) -> bytes:
    """Return a pair's key_id."""
    return key_id_of(pair.public_key)


class KeyStore(ABC):
    """One place for private keys; its methods raise TokenError if the HSM fails."""

    name: ClassVar[KeyStoreName]

    @abstractmethod
    def take_in(self, intake: Intake) -> Iterator[bytes]:
        """Take the new private keys in, each tried; yield the key_id of each.

        Raises TokenError if a wrapped key is not what it says, RefusedError if the batch
        cannot be kept here.
        """

    @abstractmethod
    def check_kept(
        self, batch: Batch, key_ids: list[bytes], session: TokenSession, database: KeyDatabase
    ) -> None:
        """Raise TokenError unless the HSM, in a new session, has kept what was taken in."""

    @abstractmethod
    def record(self, pair: NewPair, wrapped: bytes, batch: Batch, database: KeyDatabase) -> bool:
        """Take a pair into the Key Database as valid; False if it was known already."""

    def finish(self, batch: Batch, database: KeyDatabase) -> None:
        """Write down that all of the batch is taken in."""
        database.finish_batch_key(kek_id_of(batch))

    @abstractmethod
    async def half_of(self, database: KeyDatabase, pair: PairRecord) -> Half:
        """Return Host's half of a pair."""

    @abstractmethod
    async def burn(self, database: KeyDatabase, hsm: Hsm, key_id: bytes) -> None:
        """Step 10: destroy a pair's private key, and write down that it is gone."""
