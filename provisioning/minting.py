"""Minting: one-time key pairs on the traveller's token, and the batch for her Host.

In custody `paired` the private keys go to the Host too, wrapped under a key that only the
two tokens know; a Host of several machines with an HSM each gets a batch for each, with the
same pairs. In custody `split` they stay where they were made. Either everything stands at
the end, the pairs, the batch and the cover, or no pair counts: in custody `split`, an
interrupted mint leaves its pairs for the next one to go on from (provisioning.resuming).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from carnet import crash
from carnet.counting import agreeing, counted
from carnet.errors import CarnetError, PinRefusedError, TokenError
from carnet.token.onetime import OneTimePair, pair_label
from carnet.token.session import TokenSession
from carnet.wire.documents import Batch, Cover
from carnet.wire.envelope import SPLIT
from provisioning.batch_files import BatchFiles
from provisioning.choice import Choice
from provisioning.documents import batch_of, cover_of, for_other_end
from provisioning.draft import Draft, draft_of
from provisioning.journal import destroy, left_on_token, recover, undone_on_failure
from provisioning.keeping import Keeping
from provisioning.leftover import check_way, make_way
from provisioning.makers import Maker, paired_maker, split_maker
from provisioning.officer import Officer
from provisioning.options import Login
from provisioning.order import MintOrder
from provisioning.reading_back import check_file, check_token
from provisioning.resuming import in_batch, standing
from provisioning.sessions import Sessions
from softhsm.durable import saying_when_full, sync_token


@dataclass(frozen=True, kw_only=True)
class Minted:
    """What was minted."""

    batches: tuple[Batch, ...]
    """The same pairs, for one transport key after the other."""
    choice: Choice
    token_label: str
    recovered: int
    """Pairs of an earlier mint, cut off, that were destroyed first."""
    resumed: int
    """Pairs of an earlier mint, cut off, that are among these."""


@dataclass(frozen=True)
class _Made:
    """What is on the token and in the files, while the journal still names the pairs."""

    draft: Draft
    batches: tuple[Batch, ...]
    cover: Cover
    recovered: int


@dataclass
class _Mint:
    """One order, and who and what carries it out."""

    login: Login
    officer: Officer
    order: MintOrder
    keeping: Keeping
    files: BatchFiles
    on_pair: Callable[[], None]
    unsettled: str | None = None
    """What the labels of its pairs begin with, once there may be some, until they are settled."""
    made: int = 0
    resumed: frozenset[bytes] = frozenset()
    """The key ids of those of an earlier mint, cut off, that it goes on from."""
    gone: int = 0
    """So many pairs were destroyed."""
    gone_of_earlier: int = 0
    """So many of these were of earlier mints that were cut off."""

    def make(self) -> _Made:
        """Make the pairs, the batches and the cover; the journal names the pairs."""
        order, officer, keeping = self.order, self.officer, self.keeping
        with Sessions(self.login, writable=True) as sessions:
            kept = standing(sessions, keeping, order)
            self.resumed = frozenset(each.key_id for each in kept.values())
            session = sessions.current
            draft = self._draft(session, kept)
            recovered = recover(session, keeping, self._went, kept)
            for path in order.batch_files:
                make_way(path, officer, recovered.prefixes)
            with saying_when_full(self.login.token.serial):
                if not kept:
                    keeping.begin(session, draft.prefix, order.mark)
                sync_token(session)
            self.unsettled = draft.prefix
            with self._undone_on_failure(sessions), saying_when_full(self.login.token.serial):
                crash.reach("provision.begun")
                batches = _mint_batches(sessions, order, draft, self._count)
                session = sessions.current
                sync_token(session)
                crash.reach("provision.minted")
                signed = self._write_batches(batches)
                cover = cover_of(batches[0], order, draft.suite_on_cover, draft.older.cover)
                listed = (*draft.older.batches, *signed)
                keeping.write_cover(session, officer, cover, listed, self.files)
                crash.reach("provision.cover-written")
        return _Made(draft, batches, cover, recovered.pairs)

    def _draft(self, session: TokenSession, kept: Mapping[str, OneTimePair]) -> Draft:
        """Return what is to be made; what is refused is so before anything is destroyed."""
        order, officer, keeping = self.order, self.officer, self.keeping
        gone = frozenset(keeping.unfinished(session))
        for path in order.batch_files:
            check_way(path, officer, gone)
        older = keeping.older(session, officer, order.user_id, gone)
        return draft_of(session, order, older, kept, gone)

    def _count(self) -> None:
        self.made += 1
        self.on_pair()

    def _went(self, pair: OneTimePair) -> None:
        self.gone += 1
        self.gone_of_earlier += self.unsettled is None or pair.key_id in self.resumed

    def _write_batches(self, batches: tuple[Batch, ...]) -> list[bytes]:
        """Write the batches; return them signed."""
        written = []
        for path, batch in zip(self.order.batch_files, batches, strict=True):
            signed = self.officer.sign(batch)
            self.files.write(path, signed)
            written.append(signed)
            crash.reach("provision.batch-written")
        return written

    def seal(self, made: _Made) -> str:
        """Read all of it back and close the journal; return the token's label.

        With the journal the mint is done: what fails after that takes nothing back.
        """
        with Sessions(self.login, writable=True) as sessions:
            session, info = sessions.current, sessions.current.token.info
            with self._undone_on_failure(sessions):
                cover = self.keeping.read_cover(session, self.officer)
                check_token(session, made.batches[0], is_covered=cover == made.cover)
                for path, batch in zip(self.order.batch_files, made.batches, strict=True):
                    check_file(path, self.officer, batch)
                crash.reach("provision.checked")
                self.files.final = True
                self.keeping.finish(session)
            crash.reach("provision.finished")
            sync_token(session)
        return info.label

    @contextmanager
    def _undone_on_failure(self, sessions: Sessions) -> Iterator[None]:
        """Destroy the pairs, or say that this cannot be, unless the block comes to its end."""
        prefix, undone, resumes = self.unsettled or "", self.files.remove, bool(self.order.mark)
        undo = partial(destroy, journal=self.keeping, prefix=prefix, went=self._went)
        try:
            with undone_on_failure(sessions, undo, undone, resumes=resumes):
                yield
        except BaseException:
            self.unsettled = None
            raise

    def tell(self, failure: BaseException) -> None:
        """Have a failure say how many pairs it has cost, where they are missed.

        That is so of those that were there before, and of all where an interrupt costs them.
        """
        told = _destroyed(self.gone, self.gone_of_earlier)
        is_interrupt = isinstance(failure, KeyboardInterrupt)
        if is_interrupt and self.gone and not (self.order.mark or self.files.final):
            why = "since in custody paired the same command begins anew"
            failure.args = (*failure.args, f"{told}, {why}")
        elif is_interrupt and self.gone_of_earlier:
            failure.args = (*failure.args, told)
        elif isinstance(failure, CarnetError) and self.gone_of_earlier:
            failure.args = (f"{failure.sentence} {told}.",)

    def undo(self, failure: BaseException) -> None:
        """Destroy the pairs of a mint that fails while no session is open.

        Raises TokenError where they cannot be destroyed. A token that has just refused to let
        this command in is not given the PIN again, nor is a person asked for it at a pad.
        Raises KeyboardInterrupt, which says so, where the next mint goes on from them.
        """
        resumes = bool(self.order.mark)
        if resumes and self.made and isinstance(failure, KeyboardInterrupt):
            raise KeyboardInterrupt(_left(self.made)) from failure
        if self.unsettled is None:
            return
        if self.login.pin is None or _is_locked_out(failure):
            raise left_on_token(failure, resumes=resumes) from failure
        try:
            with Sessions(self.login, writable=True) as sessions:
                destroy(sessions.current, self.keeping, self.unsettled, self._went)
        except CarnetError:  # of the token, or of the file of a journal
            raise left_on_token(failure, resumes=resumes) from failure


def _left(made: int) -> str:
    """Return the half sentence that tells of pairs that an interrupt has left."""
    stays, them = agreeing(made, "stays", "stay"), agreeing(made, "it", "them")
    return (
        f"{counted(made, 'key pair')} {stays} on the token, and no Host knows {them}: run the same "
        f"command again, which goes on from there, before you hand it out"
    )


def _destroyed(gone: int, of_earlier: int) -> str:
    """Return the half sentence that tells of pairs that are destroyed, and whose they were."""
    pairs, before = counted(gone, "key pair"), "of a mint that was cut off before"
    if of_earlier == gone:
        pairs += f" {before}"
    elif of_earlier:
        pairs += f", {of_earlier} of them {before},"
    return f"{pairs} {agreeing(gone, 'is', 'are')} destroyed"


def _is_locked_out(failure: BaseException) -> bool:
    """Tell whether the token refused the PIN, or may have."""
    return isinstance(failure, TokenError) and (
        failure.pin_given or isinstance(failure, PinRefusedError)
    )


def mint(
    login: Login,
    officer: Officer,
    order: MintOrder,
    keeping: Keeping,
    on_pair: Callable[[], None],
) -> Minted:
    """Mint, write the batch and the cover, and read all of it back.

    It is read back in a second session: SoftHSM2 for one says that it has stored what
    it could not write, and shows it until it is started again. `on_pair` is called
    after each pair. Raises TokenError, or UsageError if the batch cannot be written;
    then no pair of this order is left.
    """
    minting = _Mint(login, officer, order, keeping, BatchFiles(), on_pair)
    try:
        made, label = _done(minting)
    except BaseException as failure:
        minting.tell(failure)
        raise
    return Minted(
        batches=made.batches,
        choice=made.draft.choice,
        token_label=label,
        recovered=made.recovered,
        resumed=len(made.draft.resumed),
    )


def _done(minting: _Mint) -> tuple[_Made, str]:
    """Carry it out; return what was made, and the token's label."""
    try:
        made = minting.make()
        return made, minting.seal(made)
    except BaseException as failure:
        # Once the journal closes they are removed after the pairs or not at all.
        if not minting.files.final:
            minting.files.remove()
            minting.undo(failure)
        raise


def _mint_batches(
    sessions: Sessions,
    order: MintOrder,
    draft: Draft,
    on_pair: Callable[[], None],
) -> tuple[Batch, ...]:
    with _maker(sessions, order, draft) as maker:
        minted = []
        for number in range(1, order.count + 1):
            label = pair_label(draft.moment, number)
            resumed = draft.resumed.get(label)
            made = maker.make(label, order.last_day) if resumed is None else in_batch(resumed)
            minted.append(made)
            on_pair()
        (end, *ends), (pairs, *others) = maker.ends, zip(*minted, strict=True)
        first = batch_of(sessions.current, order, draft.choice, draft.now, end, pairs)
        return (
            first,
            *(for_other_end(first, *other) for other in zip(ends, others, strict=True)),
        )


def _maker(sessions: Sessions, order: MintOrder, draft: Draft) -> AbstractContextManager[Maker]:
    session, choice = sessions.current, draft.choice
    if order.custody == SPLIT:
        host_key, used = order.host_key(choice), len(draft.resumed)
        return split_maker(session, host_key, choice, sessions.renew, used)
    return paired_maker(session, order.host_transport_keys, choice)
