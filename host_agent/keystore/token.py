"""The key store `token`: each private key is an object of its own on the HSM."""

import asyncio
from collections.abc import Iterator
from typing import ClassVar

from carnet import crash
from carnet.errors import TokenError
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import TokenSession
from carnet.wire.documents import Batch
from host_agent.hsm import Hsm
from host_agent.keydb import KeyDatabase, KeyStoreName, NewPair, PairRecord
from host_agent.keystore.halves import Half, OnToken
from host_agent.keystore.store import Intake, KeyStore, id_of, oaep_of


class TokenStore(KeyStore):
    """Destroyed is what the HSM destroyed."""

    name: ClassVar[KeyStoreName] = KeyStoreName.TOKEN

    def take_in(self, intake: Intake) -> Iterator[bytes]:
        """Unwrap each onto the HSM, for good."""
        oaep = oaep_of(intake.batch)
        for pair in intake.new:
            if pair.wrapped is not None:
                intake.transport.import_pair(
                    id_of(pair), pair.label, pair.public_key, pair.wrapped, intake.last_day, oaep
                )
                yield id_of(pair)

    def check_kept(
        self, _: Batch, key_ids: list[bytes], session: TokenSession, __: KeyDatabase
    ) -> None:
        """Ask for each: a token may report success for a key that it could not write whole."""
        held = {pair.key_id for pair in OneTimeKeys(session).pairs()}
        missing = [key_id for key_id in key_ids if key_id not in held]
        if missing:
            raise TokenError(
                f"The HSM token did not keep {len(missing)} of {len(key_ids)} keys; make room on "
                f"it and import the batch again."
            )

    def record(self, pair: NewPair, _: bytes, __: Batch, database: KeyDatabase) -> bool:
        """Record the pair alone: its private key is on the HSM."""
        return database.add_pair(pair)

    async def half_of(self, _: KeyDatabase, pair: PairRecord) -> Half:
        """Return what is on the HSM."""
        return OnToken(pair.key_id)

    async def burn(self, database: KeyDatabase, hsm: Hsm, key_id: bytes) -> None:
        """Destroy it on the HSM."""
        await hsm.destroy(key_id)
        crash.reach("host.key-destroyed")
        await asyncio.to_thread(database.record_destroyed, key_id)
