"""The key store `wrapped`: private keys in the Key Database, under a key on the HSM.

One key-encryption key (KEK) a batch: what the HSM holds, lists at a login and searches
does not grow with the pairs. The burn of a pair deletes its wrapped key; the burn of its
batch's last one destroys the KEK too, and with it what copies of the database hold.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

import structlog

from carnet import crash
from carnet.database import forget_deleted
from carnet.database.readers import ask
from carnet.errors import RefusedError, TokenAwayError, TokenError
from carnet.token.batch_keys import BatchKeys
from carnet.token.session import TokenSession
from carnet.wire.documents import BatchHead, BatchPair
from host_agent.hsm import Hsm
from host_agent.keydb import (
    Arrival,
    KeyDatabase,
    KeyStoreName,
    NewPair,
    PairRecord,
    WrappedKey,
)
from host_agent.keystore.halves import Half, InDatabase
from host_agent.keystore.store import Intake, KeyStore, id_of, kek_id_of, oaep_of, wrapped_of
from host_agent.keystore.token import TokenStore

log = structlog.get_logger()

_LONG = 5
"""Sweeps in a row: who reads or writes for a moment is in the way of one or two."""
_TOLD_AGAIN = 60
_READ_FOR_LONG = (
    "Some program reads the Key Database and does not end, so that wrapped keys stay in its -wal "
    "file that were deleted: `fuser -v` on the database lists who has it open; end that one."
)


class WrappedStore(KeyStore):
    """Destroyed is what the Key Database deleted, and for good once the KEK is."""

    name: ClassVar[KeyStoreName] = KeyStoreName.WRAPPED

    def owes(self, head: BatchHead, database: KeyDatabase) -> bool:
        """Tell whether there are pairs that want the batch's KEK on this HSM too."""
        return database.needs_batch_key(kek_id_of(head))

    def begin(self, intake: Intake, database: KeyDatabase) -> None:
        """Write down that the KEK is about to be on the HSM."""
        kek_id = kek_id_of(intake.head)
        if not database.begin_batch_key(kek_id, intake.head.batch_id, intake.serial):
            raise RefusedError(
                "The key of this batch was destroyed with its last pair; mint the batch anew."
            )
        crash.reach("import.batch-key-begun")

    def wanted(
        self, head: BatchHead, key_ids: Collection[bytes], database: KeyDatabase
    ) -> frozenset[bytes]:
        """Return those that are new, and those that are kept for other HSMs alone."""
        return database.pairs_for_batch_key(kek_id_of(head), key_ids)

    def announce(self, _: Intake, __: Sequence[BatchPair], ___: KeyDatabase) -> None:
        """Write down nothing: none stays on the HSM."""

    def take(self, intake: Intake, pair: BatchPair) -> None:
        """Unwrap it for a moment, to try it."""
        # From an import into the other store that was cut off.
        intake.transport.drop(id_of(pair))
        intake.try_pair(pair)

    def burned_meanwhile(
        self, _: Intake, __: Sequence[BatchPair], ___: KeyDatabase
    ) -> Sequence[BatchPair]:
        """Return none: none stays on the HSM."""
        return ()

    def undo(self, _: Intake, __: BatchPair) -> None:
        """Do nothing."""

    def keep(self, intake: Intake, one: BatchPair) -> None:
        """Have the KEK on the HSM, whole: an earlier import may have left it, or half of it."""
        batches, kek_id = BatchKeys(intake.session), kek_id_of(intake.head)
        if batches.holds(kek_id):
            try:
                _try(batches, intake.head, one)
            except TokenAwayError:
                raise
            except TokenError:
                intake.session.check()
                batches.destroy(kek_id)
            else:
                return
        intake.transport.keep(kek_id, intake.head.batch_id)

    def check_kept(
        self, head: BatchHead, one: BatchPair, _: list[bytes], session: TokenSession
    ) -> None:
        """Try the KEK on a pair of its batch."""
        _try(BatchKeys(session), head, one)

    def record(
        self,
        head: BatchHead,
        pairs: Iterable[tuple[NewPair, bytes]],
        database: KeyDatabase,
        arrival: Arrival,
    ) -> int:
        """Record the pairs and their wrapped private keys, at once."""
        kek_id = kek_id_of(head)
        kept = (
            (replace(pair, key_store=self.name), WrappedKey(kek_id, wrapped))
            for pair, wrapped in pairs
        )
        return database.add_wrapped_pairs(kept, arrival)

    async def half_of(self, database: KeyDatabase, pair: PairRecord) -> Half:
        """Return what the Key Database has of it."""
        copies = await ask(database.wrapped_keys, pair.key_id)
        return InDatabase(pair.key_id, pair.public_key, copies)

    async def burn(self, database: KeyDatabase, hsm: Hsm, key_id: bytes) -> None:
        """Delete the wrapped key, and destroy the KEK if no pair needs it any more.

        An import into key store `token` that was cut off may have left a copy on the HSM.
        """
        kek_ids = await asyncio.to_thread(database.burn_wrapped, key_id)
        crash.reach("host.wrapped-key-deleted")
        for kek_id in await ask(database.batch_keys_over, kek_ids):
            await _destroy(database, hsm, kek_id)
        if await ask(database.may_hold, hsm.serial, key_id):
            await TokenStore().burn(database, hsm, key_id)


async def burn_what_came_back(database: KeyDatabase, hsm: Hsm) -> None:
    """Burn again what is kept wrapped of pairs that are over; raises TokenError."""
    for key_id in await asyncio.to_thread(database.unwanted_wrapped):
        await WrappedStore().burn(database, hsm, key_id)
        log.warning("wrapped-key-deleted-again", key_id=key_id.hex())


class Forgetting:
    """Has the database's files keep nothing that was deleted; says where that fails for long."""

    def __init__(self) -> None:
        self._in_vain = 0

    async def once(self, database: KeyDatabase) -> None:
        """Try; what cannot be done now is done the next time."""
        if await asyncio.to_thread(forget_deleted, database.engine):
            self._in_vain = 0
            return
        self._in_vain += 1
        if self._in_vain % _TOLD_AGAIN == _LONG:
            log.warning("deleted-keys-kept", sweeps=self._in_vain, remedy=_READ_FOR_LONG)


async def sweep_wrapped(database: KeyDatabase, hsm: Hsm, forgetting: Forgetting) -> None:
    """Have nothing kept of wrapped keys that were burned, nor of KEKs that are not needed.

    What cannot be done now is done the next time.
    """
    if not await ask(database.has_batch_keys):
        return
    await forgetting.once(database)
    with suppress(TokenError):
        await _sweep_batch_keys(database, hsm)


async def _sweep_batch_keys(database: KeyDatabase, hsm: Hsm) -> None:
    """Destroy the KEKs that no pair needs any more and that are still on the HSM."""
    held = await hsm.batch_keys()
    over = set(await ask(database.batch_keys_to_destroy, held.serial))
    # What came back with a backup of the token is destroyed again.
    over.update(await ask(database.batch_keys_over, held.kek_ids))
    for kek_id in sorted(over):
        await _destroy(database, hsm, kek_id)


async def _destroy(database: KeyDatabase, hsm: Hsm, kek_id: bytes) -> None:
    """Destroy a KEK; what fails here is swept later, and listed meanwhile."""
    try:
        serial, was_there = await hsm.destroy_batch_key(kek_id)
    except TokenError as error:
        log.warning("batch-key-not-destroyed", kek_id=kek_id.hex(), reason=str(error))
        return
    crash.reach("host.batch-key-destroyed")
    # The KEK of another Host's HSM is not on this one: that one says it itself.
    if await asyncio.to_thread(database.record_batch_key_destroyed, kek_id, serial) or was_there:
        log.info("batch-key-destroyed", kek_id=kek_id.hex(), serial=serial)


def _try(batches: BatchKeys, head: BatchHead, one: BatchPair) -> None:
    batches.prove(kek_id_of(head), one.public_key, wrapped_of(one), oaep_of(head))
