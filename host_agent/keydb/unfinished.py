"""What imports that were cut off left on an HSM: keys of pairs that no record has.

That a key is about to be on an HSM is written down before it is, its pair is recorded when
all of its batch is there. What lies between is listed here until the batch is imported
again, or until the operator gives it up. Giving up is safe beside an import that runs: it
holds the lock of those who write while the HSM destroys, and whoever records a pair looks
whether it was given up.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, exists, func, select, update

from carnet import crash
from carnet.database.sql import now
from carnet.errors import UsageError
from carnet.portions import batched
from host_agent.keydb.store import Store
from host_agent.schema import batch_keys as _keks
from host_agent.schema import key_copies as _copies
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import wrapped_keys as _wrapped

_AT_ONCE = 500
_KNOWN = exists().where(_pairs.c.key_id == _copies.c.key_id)
_LEFT = _copies.c.destroyed_at.is_(None) & ~_KNOWN
_NEEDED = exists().where(_wrapped.c.kek_id == _keks.c.kek_id)
_LEFT_KEK = _keks.c.destroyed_at.is_(None) & _keks.c.imported_at.is_(None) & ~_NEEDED


@dataclass(frozen=True)
class Leftover:
    """How many private keys of unfinished imports may be on one HSM."""

    hsm_serial: str
    keys: int


class Unfinished(Store):
    """The keys that are on an HSM and in no record of a pair."""

    def leftovers(self) -> list[Leftover]:
        """Return how many there may be on each HSM; of an import that runs, too."""
        query = select(_copies.c.hsm_serial, func.count()).where(_LEFT)
        query = query.group_by(_copies.c.hsm_serial).order_by(_copies.c.hsm_serial)
        with self._reading.begin() as connection:
            return [Leftover(*row) for row in connection.execute(query)]

    def unfinished_keys(self, hsm_serial: str, held: Collection[bytes]) -> list[bytes]:
        """Return what is left on an HSM: of what it holds, and of what it may hold."""
        query = select(_copies.c.key_id).where(_LEFT, _copies.c.hsm_serial == hsm_serial)
        with self._reading.begin() as connection:
            left = set(connection.scalars(query))
            for some in batched(held, _AT_ONCE):
                left.update(_unknown(connection, some))
        return sorted(left)

    def unfinished_batch_keys(self, hsm_serial: str) -> list[bytes]:
        """Return the key-encryption keys (KEKs) with which an import got no further."""
        query = select(_keks.c.kek_id).where(_LEFT_KEK, _keks.c.token_serial == hsm_serial)
        with self._reading.begin() as connection:
            return list(connection.scalars(query))

    def give_up_keys(
        self,
        hsm_serial: str,
        key_ids: Sequence[bytes],
        destroy: Callable[[bytes], object],
    ) -> int:
        """Have those destroyed that no record has meanwhile; return how many these were.

        What `destroy` raises leaves them listed.
        """
        with self._writing(brief=False) as connection:
            unknown = _unknown(connection, key_ids)
            for key_id in unknown:
                destroy(key_id)
            crash.reach("import.given-up")
            connection.execute(
                update(_copies)
                .where(_copies.c.key_id.in_(unknown), _copies.c.hsm_serial == hsm_serial)
                .values(destroyed_at=now())
            )
            facts = ({"key_id": each, "hsm": hsm_serial} for each in unknown)
            self._audit_all(connection, "key-destroyed", facts)
        return len(unknown)

    def give_up_batch_key(
        self, hsm_serial: str, kek_id: bytes, destroy: Callable[[bytes], object]
    ) -> bool:
        """Have a KEK destroyed unless its import is finished meanwhile; tell whether it was."""
        here = (_keks.c.kek_id == kek_id) & (_keks.c.token_serial == hsm_serial)
        with self._writing(brief=False) as connection:
            gone = update(_keks).where(here, _LEFT_KEK).values(destroyed_at=now())
            batch_id = connection.scalar(gone.returning(_keks.c.batch_id))
            if batch_id is None:
                return False
            destroy(kek_id)
            facts = {"batch_id": batch_id, "token_serial": hsm_serial}
            self._audit(connection, "batch-key-destroyed", **facts)
        return True


def check_not_given_up(
    connection: Connection, key_ids: Collection[bytes] = (), kek_ids: Collection[bytes] = ()
) -> None:
    """Raise UsageError if the last copy of one of these was given up since it was made."""
    for column, table, wanted in (
        (_copies.c.key_id, _copies, key_ids),
        (_keks.c.kek_id, _keks, kek_ids),
    ):
        left = func.count().filter(table.c.destroyed_at.is_(None))
        query = select(column).where(column.in_(wanted)).group_by(column).having(left == 0)
        if wanted and connection.scalar(query.limit(1)) is not None:
            raise UsageError("This import was given up meanwhile; import the batch again.")


def _unknown(connection: Connection, key_ids: Collection[bytes]) -> list[bytes]:
    """Return those of these keys of which no pair is recorded."""
    known = set(connection.scalars(select(_pairs.c.key_id).where(_pairs.c.key_id.in_(key_ids))))
    return [each for each in key_ids if each not in known]
