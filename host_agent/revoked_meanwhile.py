"""An import that is under way, and whoever revokes meanwhile: what each knows of the other.

In the Key Database it is host_agent/keydb/under_way.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from carnet.counting import agreeing
from carnet.errors import RefusedError
from host_agent.batch_file import BatchFile
from host_agent.keydb import KeyDatabase
from host_agent.keystore.store import id_of


@contextmanager
def under_way(batch: BatchFile, database: KeyDatabase) -> Iterator[None]:
    """Have whoever revokes meanwhile know of an import; one that is refused never began.

    Its pairs need not have been looked at. Raises RefusedError if they cannot be read.
    """
    head = batch.head
    key_ids = (id_of(pair) for pair in batch.pairs())
    is_new = database.begin_import(head.batch_id, head.user_id, head.token_serial, key_ids)
    try:
        yield
    except RefusedError:
        if is_new:
            database.forget_import(head.batch_id)
        raise


def check_not_revoked(batch: BatchFile, database: KeyDatabase) -> None:
    """Raise RefusedError if its pairs were revoked while it was imported: they are invalid.

    To be called once all is recorded and accounted for.
    """
    revocation = database.revocation_of(batch.head.batch_id)
    if revocation is not None:
        raise RefusedError(
            f"The key pairs of this batch were revoked while it was imported "
            f"({revocation.why}), and none is valid; have new ones minted."
        )


def revoked_of_it(batch: BatchFile, database: KeyDatabase) -> str | None:
    """Return what to say of pairs that were revoked before they were recorded."""
    revoked = database.revoked_early(batch.head.batch_id)
    if not revoked:
        return None
    were, are = agreeing(revoked, "was", "were"), agreeing(revoked, "is", "are")
    return f"{revoked} of these key pairs {were} revoked during the import, and {are} invalid."
