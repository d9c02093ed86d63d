"""A mint leaves all of its pairs on the token, or none, even when it is cut off.

Somebody keeps a journal: from before the first pair until all of the batch is known to
be safe it holds what the labels of all its pairs begin with, otherwise nothing. Who finds
it filled knows that these pairs belong to no batch, and destroys them. The token itself
keeps it, in a private data object, unless that is to be a file (provisioning.in_file).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from carnet import crash
from carnet.errors import CarnetError, TokenError
from carnet.token.data import read_all_data, write_data
from carnet.token.nameless import sweep_nameless
from carnet.token.onetime import OneTimeKeys, OneTimePair
from carnet.token.session import TokenSession
from provisioning.sessions import Sessions

_LABEL = "carnet minting"
_IDLE = b""


class Journal(Protocol):
    """Where a mint notes that it has begun; every method raises TokenError, UsageError."""

    def begin(self, session: TokenSession, prefix: str) -> None:
        """Note that pairs with such labels are about to be minted."""

    def finish(self, session: TokenSession) -> None:
        """Note that they are safe, or gone."""

    def unfinished(self, session: TokenSession) -> frozenset[str]:
        """Return what the labels of pairs begin with that a mint left that was cut off."""


class TokenJournal:
    """The journal on the token."""

    def begin(self, session: TokenSession, prefix: str) -> None:
        """Note it in a private data object."""
        write_data(session, _LABEL, prefix.encode("ascii"), private=True)

    def finish(self, session: TokenSession) -> None:
        """Note that nothing is under way."""
        write_data(session, _LABEL, _IDLE, private=True)

    def unfinished(self, session: TokenSession) -> frozenset[str]:
        """Read it: a note that was cut off as it was written stands beside the one before."""
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


def recover(session: TokenSession, journal: Journal) -> Recovered:
    """Destroy what mints and burns left that were cut off. Raises TokenError.

    Besides the pairs of the journal these are single halves of pairs, and objects that
    were stored without a name.
    """
    prefixes = journal.unfinished(session)
    sweep_nameless(session)
    booklet = OneTimeKeys(session)
    for key_id in booklet.halves():
        booklet.destroy(key_id)
    destroyed = sum(destroy(session, journal, prefix) for prefix in prefixes)
    return Recovered(destroyed, prefixes)


@contextmanager
def undone_on_failure(
    sessions: Sessions, journal: Journal, prefix: str, undone: Callable[[], None]
) -> Iterator[None]:
    """Destroy the pairs that are being minted unless the block comes to its end.

    Then `undone` is called. Raises TokenError if they cannot be destroyed; recover() has
    to do it later, where the journal still names them.
    """
    try:
        yield
    except BaseException as failure:
        try:
            destroy(sessions.current, journal, prefix)
        except CarnetError:  # of the token, or of the journal's file
            raise left_on_token(failure) from failure
        undone()
        raise


def left_on_token(failure: BaseException) -> TokenError:
    """Return what there is to say where pairs of a mint that failed are still there."""
    why = f"{failure.sentence} " if isinstance(failure, CarnetError) else ""
    return TokenError(
        f"{why}Minting failed and its pairs could not be destroyed; before you hand the token out, "
        f"mint on it again, which destroys them first."
    )


def destroy(session: TokenSession, journal: Journal, prefix: str) -> int:
    """Destroy the pairs of such labels and close the journal; return how many. TokenError."""
    booklet = OneTimeKeys(session)
    pairs = [pair for pair in booklet.pairs() if pair.label.startswith(prefix)]
    destroyed = sum(booklet.destroy(pair.key_id) for pair in pairs)
    crash.reach("provision.undone")
    journal.finish(session)
    return destroyed
