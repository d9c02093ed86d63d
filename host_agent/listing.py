"""What `carnet-host keys` lists: lines for people, facts for scripts."""

from collections.abc import Iterator

from carnet.counting import counted
from carnet.wire.envelope import SPLIT
from host_agent.keydb import DESTRUCTION_OWED, OWED, BatchKey, KeyDatabase


def lines(database: KeyDatabase, user: str | None, state: str | None) -> Iterator[str]:
    """Yield counts by user and state, then each key of which the destruction is owed.

    Keys of batches, and of imports that were not finished, belong to no user.
    """
    for count in database.count(user, state):
        where = count.custody if count.custody == SPLIT else count.key_store
        yield f"{count.user_id}  {count.state}  {count.pairs}  {where}"
    if state in (None, OWED):
        for row in database.pairs(user, OWED):
            yield f"{row['user_id']}  {row['key_id'].hex()}  destruction owed"
    if user is None and state in (None, OWED):
        owed = (each for each in database.batch_keys() if each.state == DESTRUCTION_OWED)
        yield from map(_of_batch, owed)
    if user is None and state is None:
        for left in database.leftovers():
            yield f"hsm {left.hsm_serial}  {counted(left.keys, 'private key')}  import not finished"


def pairs(database: KeyDatabase, user: str | None, state: str | None) -> list[dict[str, object]]:
    """Return every pair, without its public key."""
    found = [dict(row) for row in database.pairs(user, state)]
    for pair in found:
        del pair["public_key"]
    return found


def batches(database: KeyDatabase) -> list[dict[str, object]]:
    """Return the key-encryption key of every batch."""
    return [{**vars(each), "state": each.state} for each in database.batch_keys()]


def batch_lines(database: KeyDatabase) -> list[str]:
    """Return a line for each of them."""
    return [_of_batch(each) for each in database.batch_keys()]


def _of_batch(key: BatchKey) -> str:
    return (
        f"batch {key.batch_id.hex()}  token {key.token_serial}  {counted(key.pairs, 'pair')}  "
        f"{key.state}"
    )
