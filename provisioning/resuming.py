"""Going on from a mint that was cut off, in custody `split`: what it has made counts still.

Each private key is where it is to stay, and a batch holds public keys alone, which the token
shows. In custody `paired` it cannot be: the private keys were wrapped for the Host, under a
key that is gone with the session, and what is on the token leaves it no more.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from carnet.errors import TokenAwayError, TokenError
from carnet.token.onetime import OneTimeKeys, OneTimePair
from carnet.token.session import TokenSession
from carnet.wire.documents import BatchPair
from provisioning.journal import Journal
from provisioning.order import MintOrder
from provisioning.sessions import Sessions


def standing(sessions: Sessions, journal: Journal, order: MintOrder) -> dict[str, OneTimePair]:
    """Return by their labels the pairs that a mint of the same order has left, and that serve.

    Only whole ones that sign, and never were another token's; as many as are ordered, and of
    one mint. Raises TokenError.
    """
    found = _left(sessions.current, journal, order)
    return {pair.label: pair for pair in _serving(sessions, found)}


def left(session: TokenSession, journal: Journal, order: MintOrder) -> int:
    """Return how many of the pairs that are ordered may be there already; raises TokenError."""
    return len(_left(session, journal, order))


def in_batch(pair: OneTimePair) -> tuple[BatchPair, ...]:
    """Return such a pair as each batch has it, of which there is one."""
    return (BatchPair(label=pair.label, public_key=pair.public_key, wrapped=None),)


def _left(session: TokenSession, journal: Journal, order: MintOrder) -> list[OneTimePair]:
    begun = journal.unfinished(session)
    if not order.mark or list(begun.values()) != [order.mark]:
        return []
    (prefix,) = begun
    wanted = {f"{prefix}{number:04}" for number in range(1, order.count + 1)}
    pairs = OneTimeKeys(session).pairs()
    # Of two with one label none can tell which the mint made.
    wanted -= {one.label for one, other in pairwise(pairs) if one.label == other.label}
    return [each for each in pairs if each.label in wanted and _is_as_ordered(each, order)]


def _is_as_ordered(pair: OneTimePair, order: MintOrder) -> bool:
    """Tell whether it has the type and the last day, which may be written last."""
    return (pair.key_type, pair.not_after) == (order.key_type, order.last_day)


def _serving(sessions: Sessions, found: Sequence[OneTimePair]) -> Iterator[OneTimePair]:
    """Yield those that serve: tried in a new session where the old one uses no more (a TPM)."""
    booklet = OneTimeKeys(sessions.current)
    for pair in found:
        if not _serves(booklet, pair):
            booklet = OneTimeKeys(sessions.renew())
            if not _serves(booklet, pair):
                continue
        yield pair


def _serves(booklet: OneTimeKeys, pair: OneTimePair) -> bool:
    try:
        booklet.prove_signing(pair.key_id)
    except TokenAwayError:
        raise
    except TokenError:
        return False
    return True
