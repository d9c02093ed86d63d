"""The officer's word on what was minted: batches for the Host, the cover for the traveller."""

import secrets
from datetime import datetime

from msgspec.structs import replace

from carnet.token.session import TokenSession
from carnet.wire.documents import DOCUMENT_VERSION, Batch, BatchPair, Cover
from provisioning.choice import Choice
from provisioning.makers import End
from provisioning.order import MintOrder

_BATCH_ID_SIZE = 16


def batch_of(
    session: TokenSession,
    order: MintOrder,
    choice: Choice,
    now: datetime,
    end: End,
    pairs: tuple[BatchPair, ...],
) -> Batch:
    """Return the batch of these pairs for one end."""
    return Batch(
        version=DOCUMENT_VERSION,
        batch_id=secrets.token_bytes(_BATCH_ID_SIZE),
        host_transport_key=end.host_key,
        ephemeral_key=end.ephemeral_key,
        user_id=order.user_id,
        token_serial=session.token.info.serial,
        custody=order.custody,
        suite=choice.suite.number,
        minted_at=int(now.timestamp()),
        not_after=order.not_after,
        pairs=pairs,
    )


def for_other_end(batch: Batch, end: End, pairs: tuple[BatchPair, ...]) -> Batch:
    """Return the same pairs for another HSM of the Host."""
    return replace(
        batch, host_transport_key=end.host_key, ephemeral_key=end.ephemeral_key, pairs=pairs
    )


def cover_of(batch: Batch, order: MintOrder, suite: int, older: Cover | None = None) -> Cover:
    """Return the cover of a batch's pairs, and of those that are there already."""
    return Cover(
        version=DOCUMENT_VERSION,
        user_id=batch.user_id,
        token_serial=batch.token_serial,
        hosts=order.hosts,
        targets=order.targets,
        custody=batch.custody,
        suite=suite,
        host_keys=order.host_keys,
        issued_at=batch.minted_at,
        not_after=_later(older, batch.not_after),
    )


def _later(older: Cover | None, not_after: int | None) -> int | None:
    """Return the cover's end: it outlives the older pairs too. None is never."""
    if older is None:
        return not_after
    if older.not_after is None or not_after is None:
        return None
    return max(older.not_after, not_after)
