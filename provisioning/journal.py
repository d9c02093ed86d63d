"""A mint leaves all of its pairs on the token, or none, even when it is cut off.

The token itself keeps the journal, a private data object: from before the first pair
until all of the batch is known to be safe it holds what the labels of all its pairs
begin with, otherwise nothing. Who finds it filled knows that these pairs belong to no
batch, and destroys them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from carnet import crash
from carnet.errors import TokenError
from carnet.token.data import read_all_data, write_data
from carnet.token.nameless import sweep_nameless
from carnet.token.onetime import OneTimeKeys, OneTimePair
from carnet.token.session import TokenSession

_LABEL = "carnet minting"
_IDLE = b""


def begin(session: TokenSession, prefix: str) -> None:
    """Note that pairs with such labels are about to be minted. Raises TokenError."""
    write_data(session, _LABEL, prefix.encode("ascii"), private=True)


def finish(session: TokenSession) -> None:
    """Note that they are safe. Raises TokenError."""
    write_data(session, _LABEL, _IDLE, private=True)


def unfinished(session: TokenSession) -> frozenset[str]:
    """Return what the labels of pairs begin with that a mint left that was cut off.

    Raises TokenError.
    """
    # A note that was cut off as it was written stands beside the one before.
    notes = set(read_all_data(session, _LABEL, private=True)) - {_IDLE}
    return frozenset(note.decode("ascii", "replace") for note in notes)


def is_unfinished(pair: OneTimePair, prefixes: frozenset[str]) -> bool:
    """Tell whether a pair is of such a mint: no batch has it, and the next mint destroys it."""
    return pair.label.startswith(tuple(prefixes))


@dataclass(frozen=True)
class Recovered:
    """What was left of mints that were cut off, and is destroyed."""

    pairs: int
    prefixes: frozenset[str]
    """What the labels of their pairs began with."""


def recover(session: TokenSession) -> Recovered:
    """Destroy what mints and burns left that were cut off. Raises TokenError.

    Besides the pairs of the journal these are single halves of pairs, and objects that
    were stored without a name.
    """
    prefixes = unfinished(session)
    sweep_nameless(session)
    booklet = OneTimeKeys(session)
    for key_id in booklet.halves():
        booklet.destroy(key_id)
    return Recovered(sum(_destroy(session, prefix) for prefix in prefixes), prefixes)


@contextmanager
def undone_on_failure(
    session: TokenSession, prefix: str, undone: Callable[[], None]
) -> Iterator[None]:
    """Destroy the pairs that are being minted unless the block comes to its end.

    Then `undone` is called. Raises TokenError if they cannot be destroyed; recover() has
    to do it later, where the journal still names them.
    """
    try:
        yield
    except BaseException as failure:
        try:
            _destroy(session, prefix)
        except TokenError:
            raise TokenError(
                "Minting failed and its pairs could not be destroyed; before you hand the "
                "token out, mint on it again, which destroys them first."
            ) from failure
        undone()
        raise


def _destroy(session: TokenSession, prefix: str) -> int:
    booklet = OneTimeKeys(session)
    pairs = [pair for pair in booklet.pairs() if pair.label.startswith(prefix)]
    destroyed = sum(booklet.destroy(pair.key_id) for pair in pairs)
    crash.reach("provision.undone")
    finish(session)
    return destroyed
