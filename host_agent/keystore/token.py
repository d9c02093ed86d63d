"""The key store `token`: each private key is an object of its own on the HSM."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import ClassVar

from carnet import crash
from carnet.counting import counted
from carnet.errors import TokenError
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import TokenSession
from carnet.wire.documents import BatchHead, BatchPair
from host_agent.hsm import Hsm
from host_agent.keydb import Arrival, KeyDatabase, KeyStoreName, NewPair, PairRecord
from host_agent.keystore.halves import Half, OnToken
from host_agent.keystore.store import Intake, KeyStore, id_of, wrapped_of


class TokenStore(KeyStore):
    """Destroyed is what the HSM destroyed."""

    name: ClassVar[KeyStoreName] = KeyStoreName.TOKEN

    def owes(self, _: BatchHead, __: KeyDatabase) -> bool:
        """Nothing: each private key is for itself."""
        return False

    def begin(self, _: Intake, __: KeyDatabase) -> None:
        """Write down nothing: what is cut off is seen on the HSM."""

    def wanted(
        self, _: BatchHead, key_ids: Collection[bytes], database: KeyDatabase
    ) -> frozenset[bytes]:
        """Return those that are new, and those that another Host's HSM holds."""
        return database.pairs_for_tokens(key_ids)

    def announce(self, intake: Intake, pairs: Sequence[BatchPair], database: KeyDatabase) -> None:
        """Before there is a copy of a key, that there may be one is known."""
        database.record_copies(intake.serial, [id_of(pair) for pair in pairs])

    def take(self, intake: Intake, pair: BatchPair) -> None:
        """Unwrap it onto the HSM, for good."""
        intake.transport.import_pair(
            id_of(pair),
            pair.label,
            pair.public_key,
            wrapped_of(pair),
            intake.last_day,
            intake.oaep,
        )

    def burned_meanwhile(
        self, intake: Intake, pairs: Sequence[BatchPair], database: KeyDatabase
    ) -> Sequence[BatchPair]:
        """Return them; what is not undone then is owed, and the sweep destroys it.

        Whoever burned one may still have to write down that it is gone, which it is not:
        so nothing is left to the sweep that can be done now.
        """
        burned = set(database.unwanted([id_of(pair) for pair in pairs]))
        database.record_copies(intake.serial, burned)
        return [pair for pair in pairs if id_of(pair) in burned]

    def undo(self, intake: Intake, pair: BatchPair) -> None:
        """Destroy it."""
        intake.transport.drop(id_of(pair))

    def keep(self, _: Intake, __: BatchPair) -> None:
        """Keep nothing for all of them."""

    def check_kept(
        self, _: BatchHead, __: BatchPair, key_ids: list[bytes], session: TokenSession
    ) -> None:
        """Ask for each: a token may report success for a key that it could not write whole."""
        held = {pair.key_id for pair in OneTimeKeys(session).pairs()}
        missing = [key_id for key_id in key_ids if key_id not in held]
        if missing:
            raise TokenError(
                f"The HSM token did not keep {len(missing)} of {counted(len(key_ids), 'key')}; "
                f"make room on it and import the batch again."
            )

    def record(
        self,
        _: BatchHead,
        pairs: Iterable[tuple[NewPair, bytes]],
        database: KeyDatabase,
        arrival: Arrival,
    ) -> int:
        """Record the pairs alone: their private keys are on the HSM."""
        return database.add_pairs((pair for pair, _ in pairs), arrival)

    async def half_of(self, _: KeyDatabase, pair: PairRecord) -> Half:
        """Return what is on the HSM."""
        return OnToken(pair.key_id)

    async def burn(self, database: KeyDatabase, hsm: Hsm, key_id: bytes) -> None:
        """Destroy it on the HSM."""
        await hsm.destroy(key_id)
        crash.reach("host.key-destroyed")
        await asyncio.to_thread(database.record_destroyed, key_id, hsm.serial)
