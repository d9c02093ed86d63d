"""Adopting: keys that a card has already become one-time pairs, in custody `split`.

For cards that neither make keys nor take data objects through PKCS#11. Nothing is written
on the card: the cover is a file, and the batch in it says which of the keys are pairs. A
journal beside it lets the next adoption take away what one that was cut off has left.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from carnet import crash
from carnet.counting import counted
from carnet.errors import TokenCannotError, TokenError
from carnet.token import keys
from carnet.token.adopted import FoundKey, signing_keys
from carnet.token.onetime import OneTimeKeys, pair_label
from carnet.token.pulled import saying_if_pulled
from carnet.token.session import TokenSession
from carnet.token.translation import translated
from carnet.wire.cover_file import pack_cover_file
from carnet.wire.documents import Batch, BatchPair
from provisioning.adopted_before import adopted_before
from provisioning.batch_files import BatchFiles
from provisioning.choice import Choice, choose
from provisioning.documents import batch_of, cover_of
from provisioning.draft import moment_after, prefix_of
from provisioning.in_file import FileJournal
from provisioning.journal import TokenJournal, is_unfinished
from provisioning.leftover import make_way, make_way_for_cover
from provisioning.makers import End
from provisioning.officer import Officer
from provisioning.options import Login
from provisioning.order import MintOrder
from provisioning.sessions import Sessions
from provisioning.suitability import check_fitness, tried_by

_REPEAT = "nothing of it is adopted: insert it again and repeat the command."


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What was adopted."""

    batch: Batch
    choice: Choice
    token_label: str
    before: dict[str, int]
    """How many of the keys were adopted before, by the name of the cover file that says so."""


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """An order, and what carries it out."""

    officer: Officer
    order: MintOrder
    pattern: str
    """Of the labels of the keys that are meant."""
    cover: Path
    """The file that the cover goes to."""
    accept_unfit: bool
    """Whether a token will do that lets keys out."""

    def adopt(self, login: Login, on_pair: Callable[[], None]) -> Adopted:
        """Prove the card's keys of that label and the ordered type; write batch and cover.

        Both or none. Raises TokenError where there are fewer than were ordered, or one does
        not serve, or the token lets keys out; UsageError where the files cannot be written,
        click.Abort on a no.
        """
        journal, files = FileJournal(self.cover), BatchFiles()
        token = login.module.choose(login.token)
        with (
            saying_if_pulled(token, _REPEAT) as pulled,
            Sessions(login, writable=False) as sessions,
        ):
            self._clear(sessions.current, journal)
            choice = choose(sessions.current, self.order.key_type, None, self.order.custody)
            # Its own keys are not tried: trying may loosen them. Most such cards make none.
            check_fitness(sessions.current, tried_by(choice.type_), accept=self.accept_unfit)
            now = datetime.now(UTC).replace(microsecond=0)
            moment = moment_after(OneTimeKeys(sessions.current).pairs(), now)
            pairs = tuple(self._proved(sessions, moment, on_pair))
            session = sessions.current
            label = session.token.info.label
            end = End(self.order.host_key(choice), None)
            batch = batch_of(session, self.order, choice, now, end, pairs)
            journal.begin(session, prefix_of(moment))
            try:
                self._write(batch, choice, files)
                journal.finish(session)
            except BaseException:
                files.remove()
                journal.finish(session)
                raise
            pulled.then = f"{self.cover} and its batch are written all the same."
        before = adopted_before(self.cover, (pair.public_key for pair in pairs), self.officer)
        return Adopted(batch=batch, choice=choice, token_label=label, before=before)

    def _clear(self, session: TokenSession, journal: FileJournal) -> None:
        """Take away what an adoption left that was cut off; a mint's is left to a mint."""
        prefixes = frozenset(journal.unfinished(session))
        on_token = frozenset(TokenJournal().unfinished(session))
        pairs = OneTimeKeys(session).pairs()
        for begun, how in (prefixes, ", with the same --cover"), (on_token, ""):
            if any(is_unfinished(pair, begun) for pair in pairs):
                label = session.token.info.label
                raise TokenError(f"A mint on token {label} was cut off; mint again first{how}.")
        (batch_file,) = self.order.batch_files
        make_way(batch_file, self.officer, prefixes)
        make_way_for_cover(self.cover, self.officer, prefixes)

    def _proved(
        self, sessions: Sessions, moment: datetime, on_pair: Callable[[], None]
    ) -> Iterator[BatchPair]:
        """Prove one key after the other, in a new session where the old one uses no more."""
        found, since = _enough(sessions.current, self.order, self.pattern), 0
        for place in range(len(found)):
            try:
                public_key = _prove(found[place])
            except TokenCannotError:
                if place == since:
                    raise
                found, since = _enough(sessions.renew(), self.order, self.pattern), place
                public_key = _prove(found[place])
            label = pair_label(moment, place + 1)
            yield BatchPair(label=label, public_key=public_key, wrapped=None)
            on_pair()

    def _write(self, batch: Batch, choice: Choice, files: BatchFiles) -> None:
        (batch_file,) = self.order.batch_files
        signed = self.officer.sign(batch)
        files.write(batch_file, signed)
        crash.reach("provision.batch-written")
        cover = cover_of(batch, self.order, choice.suite.number)
        files.write(self.cover, pack_cover_file(self.officer.sign(cover), [signed]))
        crash.reach("provision.cover-written")


def _enough(session: TokenSession, order: MintOrder, pattern: str) -> list[FoundKey]:
    by_public_key: dict[bytes, FoundKey] = {}
    for key in signing_keys(session, pattern):
        if key.key_type == order.key_type:
            # A card may have one key under two names: it is one pair.
            by_public_key.setdefault(key.public_key, key)
    found = list(by_public_key.values())
    if len(found) < order.count:
        raise TokenError(
            f"Token {session.token.info.label} has {counted(len(found), 'key')} {pattern!r} of "
            f"type {order.key_type} to sign with; order no more, or have keys made on it first."
        )
    for key in found[: order.count]:
        if key.asks_each_time:
            raise TokenCannotError(
                f"Key {key.label!r} wants the PIN anew for each signature "
                f"(CKA_ALWAYS_AUTHENTICATE), which cannot be given to it here; make keys without "
                f"that, or leave it out by --label."
            )
    return found[: order.count]


def _prove(key: FoundKey) -> bytes:
    with translated():
        keys.prove_signing(key.private, key.public_key)
    return key.public_key
