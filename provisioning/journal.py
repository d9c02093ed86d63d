"""A mint leaves all of its pairs on the token, or none that counts, even when it is cut off.

Somebody keeps a journal: from before the first pair until all of the batch is known to
be safe it holds what the labels of all its pairs begin with, otherwise nothing. Who finds
it filled knows that these pairs belong to no batch, and goes on from them, if their private
keys stay where they are and the same is ordered again, or else destroys them. The token itself
keeps it, in a private data object, unless that is to be a file (provisioning.in_file).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from carnet import crash
from carnet.errors import CarnetError, TokenError
from carnet.token.data import read_all_data, write_data
from carnet.token.nameless import sweep_nameless
from carnet.token.onetime import OneTimeKeys, OneTimePair, is_pair_label
from carnet.token.session import TokenSession
from provisioning.sessions import Sessions
from softhsm.durable import sync_token

Went = Callable[[OneTimePair], None]
"""Is told of each pair as soon as it is destroyed: what cuts that off leaves the others."""

_LABEL = "carnet minting"
_IDLE = b""


class Journal(Protocol):
    """Where a mint notes that it has begun; every method raises TokenError, UsageError."""

    def begin(self, session: TokenSession, prefix: str, order: str = "") -> None:
        """Note that pairs with such labels are about to be minted.

        `order` is what a later mint has to be of to go on from them; none may where it is empty.
        """

    def finish(self, session: TokenSession) -> None:
        """Note that they are safe, or gone."""

    def unfinished(self, session: TokenSession) -> Mapping[str, str]:
        """Return what the labels of pairs begin with that a mint left that was cut off.

        With each goes its order, as begin() was told.
        """


class TokenJournal:
    """The journal on the token."""

    def begin(self, session: TokenSession, prefix: str, order: str = "") -> None:
        """Note it in a private data object."""
        note = f"{prefix}{order}".encode("ascii")
        write_data(session, _LABEL, note, private=True, sync=sync_token)

    def finish(self, session: TokenSession) -> None:
        """Note that nothing is under way, once all else that was stored or destroyed is so."""
        write_data(session, _LABEL, _IDLE, private=True, sync=sync_token)

    def unfinished(self, session: TokenSession) -> Mapping[str, str]:
        """Read it: a note that was cut off as it was written stands beside the one before."""
        notes = set(read_all_data(session, _LABEL, private=True)) - {_IDLE}
        told = dict(map(_read, notes))
        if not all(map(_is_prefix, told)) and OneTimeKeys(session).pairs():
            raise TokenError(
                f"Token {session.token.info.label} has a journal that no mint wrote so, and cannot "
                f"tell which of its key pairs have a batch; burn them all, and mint again."
            )
        return {prefix: order for prefix, order in told.items() if _is_prefix(prefix)}


def _read(note: bytes) -> tuple[str, str]:
    prefix, space, order = note.decode("ascii", "replace").rpartition(" ")
    return prefix + space, order


def _is_prefix(told: str) -> bool:
    """Tell whether the labels of one mint's pairs begin so, and of no other: they may be lost."""
    return is_pair_label(f"{told}0001")


def is_unfinished(pair: OneTimePair, prefixes: Collection[str]) -> bool:
    """Tell whether a pair is of such a mint: no batch has it."""
    return pair.label.startswith(tuple(prefixes))


@dataclass(frozen=True)
class Recovered:
    """What was left of mints that were cut off."""

    pairs: int
    """So many were destroyed."""
    prefixes: frozenset[str]
    """What the labels of their pairs began with."""
    kept: Mapping[str, OneTimePair]
    """Those that the next mint goes on from, by their labels, which begin alike."""


def recover(
    session: TokenSession,
    journal: Journal,
    went: Went,
    kept: Mapping[str, OneTimePair] = MappingProxyType({}),
) -> Recovered:
    """Destroy what mints and burns left that were cut off, but for what is kept of one mint.

    Besides the pairs of the journal, of which `went` is told, these are single halves of pairs,
    and objects that were stored without a name. Raises TokenError.
    """
    prefixes = frozenset(journal.unfinished(session))
    sweep_nameless(session)
    booklet = OneTimeKeys(session)
    for key_id in booklet.halves():
        booklet.destroy(key_id)
    left = [each for each in booklet.pairs() if is_unfinished(each, prefixes)]
    spared = {each.key_id for each in kept.values()}
    destroyed = _destroy_all(booklet, (each for each in left if each.key_id not in spared), went)
    if prefixes and not kept:
        crash.reach("provision.undone")
        journal.finish(session)
    return Recovered(destroyed, prefixes, kept)


def _destroy_all(booklet: OneTimeKeys, pairs: Iterable[OneTimePair], went: Went) -> int:
    destroyed = 0
    for pair in pairs:
        if booklet.destroy(pair.key_id):
            destroyed += 1
            went(pair)
    return destroyed


@contextmanager
def undone_on_failure(
    sessions: Sessions,
    undo: Callable[[TokenSession], None],
    undone: Callable[[], None],
    *,
    resumes: bool,
) -> Iterator[None]:
    """Have `undo` destroy the pairs that are being minted unless the block comes to its end.

    Then `undone` is called. Where the next mint `resumes`, what is interrupted leaves them to it.
    Raises TokenError if they cannot be destroyed; recover() has
    to do it later, where the journal still names them.
    """
    try:
        yield
    except BaseException as failure:
        if resumes and isinstance(failure, KeyboardInterrupt):
            raise
        try:
            undo(sessions.current)
        except CarnetError:  # of the token, or of the journal's file
            raise left_on_token(failure, resumes=resumes) from failure
        undone()
        raise


def left_on_token(failure: BaseException, *, resumes: bool = False) -> TokenError:
    """Return what there is to say where pairs of a mint that failed are still there."""
    why = f"{failure.sentence} " if isinstance(failure, CarnetError) else ""
    if resumes:
        return TokenError(
            f"{why}The pairs that are made stay on the token, and no Host knows them; before you "
            f"hand it out, run the same command again, which goes on from them."
        )
    return TokenError(
        f"{why}Minting failed and its pairs could not be destroyed; before you hand the token out, "
        f"mint on it again, which destroys them first."
    )


def destroy(session: TokenSession, journal: Journal, prefix: str, went: Went) -> None:
    """Destroy the pairs of such labels and close the journal; raises TokenError."""
    booklet = OneTimeKeys(session)
    _destroy_all(booklet, (each for each in booklet.pairs() if each.label.startswith(prefix)), went)
    crash.reach("provision.undone")
    journal.finish(session)
