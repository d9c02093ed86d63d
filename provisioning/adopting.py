"""Adopting: keys that a card has already become one-time pairs, in custody `split`.

For cards that neither make keys nor take data objects through PKCS#11. Nothing is written
on the card: the cover is a file, and the batch in it says which of the keys are pairs.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from carnet.errors import TokenError
from carnet.token import keys
from carnet.token.adopted import FoundKey, signing_keys
from carnet.token.onetime import pair_label
from carnet.token.session import TokenSession
from carnet.token.translation import translated
from carnet.wire.cover_file import pack_cover_file
from carnet.wire.documents import DOCUMENT_VERSION, Batch, BatchPair
from provisioning.batch_files import BatchFiles
from provisioning.choice import Choice, choose
from provisioning.minting import BATCH_ID_SIZE, MintOrder, cover_of, end_of, host_key_of
from provisioning.officer import Officer
from provisioning.options import Login


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What was adopted."""

    batch: Batch
    choice: Choice
    token_label: str


def adopt(
    login: Login,
    officer: Officer,
    order: MintOrder,
    pattern: str,
    files: BatchFiles,
    on_pair: Callable[[], None],
) -> tuple[Adopted, bytes]:
    """Prove the card's keys of that label and the ordered type; return them, and the cover file.

    The batch is written. Raises TokenError where there are fewer than were ordered, or
    one does not serve; UsageError where the batch cannot be written.
    """
    with login.session(writable=False) as session:
        choice = choose(session, order.key_type, None, order.custody)
        found = _enough(session, order, pattern)
        batch = _batch(session, order, choice, found, on_pair)
        label = session.token.info.label
    signed = officer.sign(batch)
    files.write(order.batch_files[0], signed)
    cover = cover_of(batch, order, choice.suite.number, batch.not_after)
    file = pack_cover_file(officer.sign(cover), [signed])
    return Adopted(batch=batch, choice=choice, token_label=label), file


def _enough(session: TokenSession, order: MintOrder, pattern: str) -> list[FoundKey]:
    found = [key for key in signing_keys(session, pattern) if key.key_type == order.key_type]
    if len(found) < order.count:
        raise TokenError(
            f"Token {session.token.info.label} has {len(found)} keys {pattern!r} of type "
            f"{order.key_type} that sign; order no more, or have keys made on it first."
        )
    return found[: order.count]


def _batch(
    session: TokenSession,
    order: MintOrder,
    choice: Choice,
    found: list[FoundKey],
    on_pair: Callable[[], None],
) -> Batch:
    now = datetime.now(UTC).replace(microsecond=0)
    pairs = []
    for number, key in enumerate(found, 1):
        with translated():
            keys.prove_signing(key.private, key.public_key)
        label = pair_label(now, number)
        pairs.append(BatchPair(label=label, public_key=key.public_key, wrapped=None))
        on_pair()
    return Batch(
        version=DOCUMENT_VERSION,
        batch_id=secrets.token_bytes(BATCH_ID_SIZE),
        host_transport_key=host_key_of(order, choice),
        ephemeral_key=None,
        user_id=order.user_id,
        token_serial=session.token.info.serial,
        custody=order.custody,
        suite=choice.suite.number,
        minted_at=int(now.timestamp()),
        not_after=end_of(order.last_day),
        pairs=tuple(pairs),
    )
