"""Imports that are under way: a revocation concerns what they are about to bring, too.

An import is written down before anything of it is kept, and forgotten with the
transaction that records its pairs. Whoever revokes meanwhile, by user or token, notes that
here, and the pairs are recorded as invalid. One that was cut off is under way until its
batch is imported again or the operator gives it up; one that was revoked stays so for ever.
"""

from sqlalchemy import Connection, delete, select, update

from carnet.database.sql import now, upsert
from carnet.errors import UsageError
from host_agent.keydb.records import Reason, Revocation
from host_agent.keydb.store import Store
from host_agent.schema import imports as _imports

_NAMED_BY = {"user_id", "token_serial"}
"""What all pairs of a batch have in common."""
_OPEN = _imports.c.revoked_at.is_(None)


class UnderWay(Store):
    """Which imports have begun and have not recorded their pairs."""

    def begin_import(self, batch_id: bytes, user_id: str, token_serial: str, pairs: int) -> bool:
        """Write down that an import begins; False if it has begun before, and was cut off."""
        row = {"batch_id": batch_id, "user_id": user_id, "token_serial": token_serial}
        with self._engine.begin() as connection:
            begun = upsert(connection, _imports).values(pairs=pairs, begun_at=now(), **row)
            new = begun.on_conflict_do_nothing().returning(_imports.c.batch_id)
            return connection.scalar(new) is not None

    def revoke_imports(self, revocation: Revocation, **which: object) -> int:
        """Have no pair become valid that an import of this user or token is about to record.

        Returns how many pairs their batches have. Call it before the pairs that are known
        are revoked: what is recorded in between is among these.
        """
        if not which.keys() <= _NAMED_BY:
            return 0
        concerned = [_imports.c[column] == value for column, value in which.items()]
        with self._engine.begin() as connection:
            revoked = (
                update(_imports)
                .where(_OPEN, *concerned)
                .values(
                    revoked_at=now(),
                    reason=revocation.reason,
                    why=revocation.why,
                    revoked_by=revocation.by,
                )
            )
            return sum(connection.scalars(revoked.returning(_imports.c.pairs)))

    def forget_import(self, batch_id: bytes) -> None:
        """Say that an import was refused, and changed nothing; one that was revoked stays so."""
        with self._engine.begin() as connection:
            connection.execute(delete(_imports).where(_imports.c.batch_id == batch_id, _OPEN))

    def forget_imports(self) -> None:
        """Say that those that were cut off are given up; for whom no import runs beside."""
        with self._engine.begin() as connection:
            connection.execute(delete(_imports).where(_OPEN))

    def revocation_of(self, batch_id: bytes) -> Revocation | None:
        """Return what revoked the pairs of a batch while it was imported."""
        with self._reading.begin() as connection:
            return _revocation_of(connection, batch_id)


def end_import(connection: Connection, batch_id: bytes) -> Revocation | None:
    """Say that a batch is recorded with this transaction; return what has revoked it meanwhile.

    Raises UsageError if it was given up.
    """
    open_ = delete(_imports).where(_imports.c.batch_id == batch_id, _OPEN)
    if connection.execute(open_).rowcount:
        return None
    revocation = _revocation_of(connection, batch_id)
    if revocation is None:
        raise UsageError("This import was given up meanwhile; import the batch again.")
    return revocation


def _revocation_of(connection: Connection, batch_id: bytes) -> Revocation | None:
    query = select(_imports.c.why, _imports.c.reason, _imports.c.revoked_by)
    row = connection.execute(query.where(_imports.c.batch_id == batch_id, ~_OPEN)).first()
    return Revocation(row.why, Reason(row.reason), row.revoked_by) if row else None
