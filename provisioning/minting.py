"""Minting: one-time key pairs on the traveller's token, and the batch for her Host.

In custody `paired` the private keys go to the Host too, wrapped under a key that only the
two tokens know; a Host of several machines with an HSM each gets a batch for each, with the
same pairs. In custody `split` they stay where they were made. Either everything stands at
the end, the pairs, the batch and the cover, or no pair does.
"""

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from msgspec.structs import replace

from carnet import crash
from carnet.cover import read_cover
from carnet.errors import TokenError, UsageError
from carnet.files import read_small
from carnet.token.onetime import OneTimeKeys, OneTimePair, pair_label
from carnet.token.session import TokenSession
from carnet.wire.documents import DOCUMENT_VERSION, Batch, BatchPair, Cover, verify_document
from carnet.wire.envelope import SPLIT
from carnet.wire.fault import WireError
from carnet.wire.split import choose_host_keys
from provisioning.batch_files import BatchFiles
from provisioning.booklet import check_owner, write_cover
from provisioning.choice import Choice, choose, suite_on_cover
from provisioning.journal import begin, finish, recover, undone_on_failure
from provisioning.leftover import MAX_FILE, make_way
from provisioning.makers import Maker, paired_maker, split_maker
from provisioning.officer import Officer
from provisioning.options import Login
from softhsm.durable import saying_when_full, sync_token

BATCH_ID_SIZE = 16


@dataclass(frozen=True, kw_only=True)
class MintOrder:
    """What is to be minted."""

    user_id: str
    count: int
    custody: str
    host_transport_keys: tuple[bytes, ...]
    """In custody `paired`: DER SubjectPublicKeyInfo, on P-256; one for each HSM of the Host."""
    host_keys: tuple[bytes, ...]
    """In custody `split`, the Host's long-term keys as a cover lists them."""
    hosts: tuple[str, ...]
    targets: tuple[str, ...]
    key_type: str
    """A name in provisioning.choice.KEY_TYPES."""
    oaep_hash: str | None
    """For RSA pairs, a name in OAEP_NAMES; None: the strongest that the token can do."""
    last_day: date | None
    """Last day of validity, UTC."""
    batch_files: tuple[Path, ...]
    """One for each transport key."""


@dataclass(frozen=True, kw_only=True)
class Minted:
    """What was minted."""

    batches: tuple[Batch, ...]
    """The same pairs, for one transport key after the other."""
    choice: Choice
    token_label: str
    recovered: int
    """Pairs of an earlier mint, cut off, that were destroyed first."""


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """What the token and the clock add to an order."""

    now: datetime
    moment: datetime
    """The one in the labels of the pairs."""
    older: Cover | None
    """The cover of pairs that are there already."""
    choice: Choice
    suite_on_cover: int

    @property
    def prefix(self) -> str:
        """What the labels of this mint, and of no other, begin with."""
        return pair_label(self.moment, 0).rpartition(" ")[0] + " "


@dataclass(frozen=True)
class _Made:
    """What is on the token and in the files, while the journal still names the pairs."""

    draft: _Draft
    batches: tuple[Batch, ...]
    cover: Cover
    recovered: int


def mint(login: Login, officer: Officer, order: MintOrder, on_pair: Callable[[], None]) -> Minted:
    """Mint, write the batch and the cover, and read all of it back.

    It is read back in a second session: SoftHSM2 for one says that it has stored what
    it could not write, and shows it until it is started again. `on_pair` is called
    after each pair. Raises TokenError, or UsageError if the batch cannot be written;
    then no pair of this order is left.
    """
    files = BatchFiles()
    try:
        made = _make(login, officer, order, files, on_pair)
        label = _seal(login, officer, order, files, made)
    except BaseException:
        # Once the journal closes they are removed after the pairs or not at all.
        if not files.final:
            files.remove()
        raise
    return Minted(
        batches=made.batches,
        choice=made.draft.choice,
        token_label=label,
        recovered=made.recovered,
    )


def _make(
    login: Login,
    officer: Officer,
    order: MintOrder,
    files: BatchFiles,
    on_pair: Callable[[], None],
) -> _Made:
    """Make the pairs, the batches and the cover; the journal names the pairs."""
    with login.session(writable=True) as session:
        recovered = recover(session)
        for path in order.batch_files:
            make_way(path, officer, recovered.prefixes)
        draft = _draft(session, officer, order)
        begin(session, draft.prefix)
        sync_token(session.token.info.serial)
        with (
            undone_on_failure(session, draft.prefix, files.remove),
            saying_when_full(login.serial),
        ):
            crash.reach("provision.begun")
            batches = _mint_batches(session, order, draft, on_pair)
            sync_token(session.token.info.serial)
            crash.reach("provision.minted")
            for path, batch in zip(order.batch_files, batches, strict=True):
                files.write(path, officer.sign(batch))
                crash.reach("provision.batch-written")
            until = _later(draft.older, batches[0].not_after)
            cover = cover_of(batches[0], order, draft.suite_on_cover, until)
            write_cover(session, officer, cover)
            crash.reach("provision.cover-written")
    return _Made(draft, batches, cover, recovered.pairs)


def _seal(login: Login, officer: Officer, order: MintOrder, files: BatchFiles, made: _Made) -> str:
    """Read all of it back and close the journal; return the token's label.

    With the journal the mint is done: what fails after that takes nothing back.
    """
    with login.session(writable=True) as session:
        info = session.token.info
        with undone_on_failure(session, made.draft.prefix, files.remove):
            _check_token(session, made.batches[0], made.cover)
            for path, batch in zip(order.batch_files, made.batches, strict=True):
                _check_file(path, officer, batch)
            crash.reach("provision.checked")
            files.final = True
            finish(session)
        crash.reach("provision.finished")
        sync_token(info.serial)
    return info.label


def _draft(session: TokenSession, officer: Officer, order: MintOrder) -> _Draft:
    cover = check_owner(session, officer, order.user_id)
    pairs = OneTimeKeys(session).pairs()
    older = cover if pairs else None
    _check_older(older, order, session.token.info.label)
    choice = choose(session, order.key_type, order.oaep_hash, order.custody)
    host_key_of(order, choice)
    now = datetime.now(UTC).replace(microsecond=0)
    return _Draft(
        now=now,
        moment=_moment_after(pairs, now),
        older=older,
        choice=choice,
        suite_on_cover=suite_on_cover(choice, pairs, older, session.token.info.label),
    )


def _check_older(older: Cover | None, order: MintOrder, label: str) -> None:
    """Raise TokenError for pairs that the one cover of the token could not speak for too."""
    if older is not None and older.custody != order.custody:
        raise TokenError(
            f"Token {label} holds key pairs in custody {older.custody}; mint in that one, or burn "
            f"them first."
        )
    if older is not None and older.host_keys != order.host_keys:
        raise TokenError(
            f"Token {label} holds key pairs for other keys of the Host; burn them first."
        )


def host_key_of(order: MintOrder, choice: Choice) -> bytes:
    """Return the Host's key that the first batch is for; raises UsageError if it has none."""
    if order.custody != SPLIT:
        return order.host_transport_keys[0]
    try:
        return choose_host_keys(order.host_keys, choice.suite).sealing
    except WireError as error:
        raise UsageError(
            f"The Host has no keys for suite {choice.suite.name} ({error}); choose another "
            f"--key-type, or get its keys anew."
        ) from error


def _moment_after(older: list[OneTimePair], now: datetime) -> datetime:
    """Return the moment for the labels: now, or after the newest pair if the clock is behind."""
    if not older:
        return now
    newest = older[-1].label.split()[1]
    try:
        following = datetime.strptime(newest, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return max(now, following + timedelta(seconds=1))
    except (ValueError, OverflowError) as error:
        raise TokenError(
            f"Key pair {older[-1].key_id.hex()} has a label that minting never gives; burn it."
        ) from error


def _mint_batches(
    session: TokenSession,
    order: MintOrder,
    draft: _Draft,
    on_pair: Callable[[], None],
) -> tuple[Batch, ...]:
    with _maker(session, order, draft.choice) as maker:
        minted = [
            _mint_pair(maker, draft, number, order.last_day, on_pair)
            for number in range(1, order.count + 1)
        ]
        first = Batch(
            version=DOCUMENT_VERSION,
            batch_id=secrets.token_bytes(BATCH_ID_SIZE),
            host_transport_key=maker.ends[0].host_key,
            ephemeral_key=maker.ends[0].ephemeral_key,
            user_id=order.user_id,
            token_serial=session.token.info.serial,
            custody=order.custody,
            suite=draft.choice.suite.number,
            minted_at=int(draft.now.timestamp()),
            not_after=end_of(order.last_day),
            pairs=tuple(pairs[0] for pairs in minted),
        )
        return tuple(
            replace(
                first,
                host_transport_key=end.host_key,
                ephemeral_key=end.ephemeral_key,
                pairs=tuple(pairs[place] for pairs in minted),
            )
            for place, end in enumerate(maker.ends)
        )


def _maker(
    session: TokenSession, order: MintOrder, choice: Choice
) -> AbstractContextManager[Maker]:
    if order.custody == SPLIT:
        return split_maker(session, host_key_of(order, choice), choice)
    return paired_maker(session, order.host_transport_keys, choice)


def _mint_pair(
    maker: Maker,
    draft: _Draft,
    number: int,
    last_day: date | None,
    on_pair: Callable[[], None],
) -> tuple[BatchPair, ...]:
    """Make a pair; return it as each Host's HSM gets it."""
    label = pair_label(draft.moment, number)
    made = maker.make(label, last_day)
    on_pair()
    return made


def cover_of(batch: Batch, order: MintOrder, suite: int, not_after: int | None) -> Cover:
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
        not_after=not_after,
    )


def _later(older: Cover | None, not_after: int | None) -> int | None:
    """Return the cover's end: it outlives the older pairs too. None is never."""
    if older is None:
        return not_after
    if older.not_after is None or not_after is None:
        return None
    return max(older.not_after, not_after)


def end_of(day: date | None) -> int | None:
    """Return the last second of a day, in seconds since 1970, UTC."""
    if day is None:
        return None
    return int(datetime.combine(day, time(23, 59, 59), UTC).timestamp())


def _check_token(session: TokenSession, batch: Batch, cover: Cover) -> None:
    """Raise TokenError unless the token holds what was minted, in that order, and the cover."""
    held = [(pair.label, pair.public_key) for pair in OneTimeKeys(session).pairs()]
    minted = [(pair.label, pair.public_key) for pair in batch.pairs]
    if held[-len(minted) :] != minted or read_cover(session) != cover:
        raise TokenError(
            "The token did not keep what was stored on it; make room on it, or use another token."
        )


def _check_file(path: Path, officer: Officer, batch: Batch) -> None:
    """Raise UsageError unless the batch file says what was minted."""
    try:
        signed = read_small(path, MAX_FILE)
        written = verify_document(signed, Batch, officer.verification_key)
    except (OSError, WireError) as error:
        raise UsageError(f"{path} cannot be read back; choose another place for it.") from error
    if written != batch:
        raise UsageError(f"{path} was changed while it was written; choose another place for it.")
