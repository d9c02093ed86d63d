"""Taking a batch of key pairs in: what the HSM holds of it first, then the Key Database.

A pair that the Key Database knows stays as it is, whatever became of it: importing
a batch twice changes nothing, and what is spent stays spent. Another batch that brings it
anew is refused where it is no more what that batch says. Whoever is interrupted
imports the batch again. In custody `split` nothing goes onto the HSM; it is asked all the
same whether it holds the Host's key that the batch is for, and whether the Key Database is
the newest, in which spent pairs are known as such. Of several Hosts with an HSM each, each
imports the batch that was made for its own.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain
from typing import Protocol, Self, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from carnet import crash
from carnet.counting import counted
from carnet.database import alone as alone_at
from carnet.errors import RefusedError, TokenCannotError, TokenError, UsageError
from carnet.portions import batched
from carnet.progress import Advance, Bars
from carnet.token.nameless import sweep_nameless
from carnet.token.session import TokenSession
from carnet.token.transport import host_transport_key, open_transport
from carnet.wire.documents import BatchHead, BatchPair
from carnet.wire.envelope import SPLIT
from carnet.wire.keys import key_id_of
from host_agent.batch_file import BatchFile
from host_agent.config import HostConfig
from host_agent.keydb import Arrival, KeyDatabase, KeyStoreName, NewPair
from host_agent.keystore.store import Intake, KeyStore, id_of, wrapped_of
from host_agent.keystore.stores import store_of
from host_agent.local import hsm_session
from host_agent.rollback import check_not_older
from host_agent.split_batch import check_split_batch
from softhsm.durable import sync_token

T = TypeVar("T")
_ON_TOKEN = store_of(KeyStoreName.TOKEN)
_AT_ONCE = 500
"""Pairs that the Key Database is asked for at once."""
_NAMED = 3
"""Pairs that a refusal names; of more it says how many."""


class HsmToken(Protocol):
    """The Host's HSM token, to whomever an import has it from."""

    def use(self, work: Callable[[TokenSession], T]) -> T:
        """Do something with the session; raises what the work raises."""

    def renew(self) -> None:
        """Log in anew, so that the token shows what it really keeps."""


class OwnHsmToken:
    """The HSM token of a command that logs in by itself; a context manager logs out."""

    def __init__(self, config: HostConfig, pin: str) -> None:
        self._config, self._pin = config, pin
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        self._session = self._closing.enter_context(hsm_session(self._config, self._pin))
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def use(self, work: Callable[[TokenSession], T]) -> T:
        """Do something with the session; raises what the work raises."""
        return work(self._session)

    def renew(self) -> None:
        """Log out, and in again; raises TokenError."""
        self._closing.close()
        self.__enter__()


@contextmanager
def alone(database: KeyDatabase) -> Iterator[Callable[[], None]]:
    """Be the only import of this Host: two would put the same keys on an HSM twice.

    Of two copies of a key, a process that knows of one would burn one. Gives what raises
    UsageError where that is so no more, for take_in(). Raises UsageError if another one runs.
    """
    with alone_at(database.engine, "import") as is_alone:
        if not is_alone():
            raise UsageError("Another import runs; wait until it is over.")
        yield partial(_check_alone, is_alone)


def _check_alone(is_alone: Callable[[], bool]) -> None:
    with suppress(SQLAlchemyError):
        if is_alone():
            return
    raise UsageError(
        "The import lost its connection to the database, and with it the lock that keeps others "
        "out; import the batch again."
    )


def store_for(batch: BatchFile, database: KeyDatabase, config: HostConfig) -> KeyStore:
    """Return the key store that a batch is taken into.

    Where its pairs are valid already, by another Host's import or under another setting,
    it is the one that they are in: a pair is served from one only. A batch in custody
    `split` has nothing to keep.
    """
    if batch.head.custody == SPLIT:
        return _ON_TOKEN
    for some in batched(batch.pairs(), _AT_ONCE):
        found = database.store_of_valid([id_of(pair) for pair in some])
        if found is not None:
            return store_of(found)
    return store_of(config.token.key_store)


def other_store(batch: BatchFile, store: KeyStore, config: HostConfig) -> str | None:
    """Return what to tell the operator where that is not the store of his setting."""
    if batch.head.custody == SPLIT or store.name == config.token.key_store:
        return None
    return (
        f"The key pairs are known in key store `{store.name}`, and are kept there; `key_store` is "
        f"`{config.token.key_store}` here: let all machines of this Host have the same."
    )


def take_in(
    batch: BatchFile,
    hsm: HsmToken,
    database: KeyDatabase,
    store: KeyStore,
    bars: Bars,
    *,
    still_alone: Callable[[], None],
    received: bool = False,
) -> int:
    """Take a batch in, whole or not at all; return how many of its pairs were new.

    To be called within under_way() (host_agent.revoked_meanwhile). `store` is that of
    store_for(), `still_alone` that of alone(), which is asked before each portion. Whoever
    calls it has the head of the accounts signed then, and asks check_not_revoked(). `received`
    says that the officer sent it, for the accounts. Raises UsageError if the Key Database is
    older than the HSM knows, or another import may run; RefusedError if the batch was made for
    another Host, cannot be used by this HSM, brings pairs that are spent or another's, or was
    changed since it was opened; TokenError if the HSM fails.
    """
    hsm.use(partial(check_not_older, database))
    split = batch.head.custody == SPLIT
    if split:
        hsm.use(partial(check_split_batch, batch.head))
    _check_pairs_stand(batch, database)
    if not split:
        with bars("Unwrapping", batch.count) as advance:
            key_ids = list(wrapped_onto_hsm(batch, hsm, database, advance, store, still_alone))
        check_kept(batch, key_ids, hsm, database, store)
        hsm.use(sync_token)
    with bars("Recording", batch.count) as advance:
        added = _asking(still_alone, advance)
        return record_batch(batch, database, added, store, received=received)


def _asking(still_alone: Callable[[], None], advance: Advance) -> Advance:
    """Have it asked with each portion that is recorded: when the last is, none is durable yet."""

    def added(steps: int = 1) -> None:
        still_alone()
        advance(steps)

    return added


def wrapped_onto_hsm(
    batch: BatchFile,
    hsm: HsmToken,
    database: KeyDatabase,
    advance: Advance,
    store: KeyStore = _ON_TOKEN,
    still_alone: Callable[[], None] = lambda: None,
) -> Iterator[bytes]:
    """Take the private keys in, each tried on the HSM; yield the key_id of each it shall hold.

    For a batch in custody `paired`. Raises RefusedError, before anything is changed, if it
    was made for another Host or cannot be used here, by this HSM for one; TokenError if a
    wrapped key is not what it says.
    """
    hsm.use(partial(_check_transport_key, batch.head))
    samples = _one_of_each_size(_wanted(batch, database, store))
    if not samples and not store.owes(batch.head, database):
        return
    with _begun(batch.head, hsm) as transport:
        for pair in samples:
            transport.do(_try, pair)
        store.begin(transport.intake, database)
        for some in _wanted(batch, database, store):
            still_alone()
            store.announce(transport.intake, some, database)
            for pair in some:
                transport.do(store.take, pair)
                advance()
            burned = store.burned_meanwhile(transport.intake, some, database)
            for pair in burned:
                transport.do(store.undo, pair)
                database.record_destroyed(id_of(pair), transport.intake.serial)
            yield from (id_of(pair) for pair in some if pair not in burned)
        transport.do(store.keep, batch.one())


def check_kept(
    batch: BatchFile,
    key_ids: list[bytes],
    hsm: HsmToken,
    database: KeyDatabase,
    store: KeyStore = _ON_TOKEN,
) -> None:
    """Raise TokenError unless the HSM, asked anew, kept what was taken in.

    In a new session: a token may report success for a key that it could not write
    whole, and shows the loss only when it is opened again.
    """
    if key_ids or store.owes(batch.head, database):
        hsm.renew()
        hsm.use(partial(store.check_kept, batch.head, batch.one(), key_ids))
    crash.reach("import.kept")


def record_batch(
    batch: BatchFile,
    database: KeyDatabase,
    advance: Advance,
    store: KeyStore = _ON_TOKEN,
    *,
    received: bool = False,
) -> int:
    """Take the batch's pairs into the Key Database as valid; return how many were new.

    All in one transaction: where the file turns out to have been changed, none. After a
    revocation since under_way() they are invalid.
    """
    head = batch.head
    pairs = ((_new_pair(head, pair), wrapped_of(pair)) for pair in batch.pairs())
    facts = {"user_id": head.user_id, "batch_id": head.batch_id}
    about = {**facts, "pairs": batch.count, "digest": batch.digest}
    arrival = Arrival(advance, about if received else None, head.batch_id)
    new = store.record(head, pairs, database, arrival)
    crash.reach("import.recorded")
    store.finish(head, database)
    return new


class _Transport:
    """An intake, as long as the session lasts in which it was begun."""

    def __init__(self, hsm: HsmToken, intake: Intake) -> None:
        self._hsm, self.intake = hsm, intake

    def do(self, work: Callable[[Intake, BatchPair], None], pair: BatchPair) -> None:
        """Do something with a pair on the HSM; raises TokenError if it was away meanwhile."""

        def in_its_session(session: TokenSession) -> None:
            if session is not self.intake.session:
                raise TokenError("The HSM was away during the import; import the batch again.")
            work(self.intake, pair)

        self._hsm.use(in_its_session)

    def end(self, session: TokenSession) -> None:
        """Destroy the key-encryption key; with its session it is gone already."""
        if session is self.intake.session:
            self.intake.transport.close()


@contextmanager
def _begun(head: BatchHead, hsm: HsmToken) -> Iterator[_Transport]:
    """Agree with a batch's ephemeral key, as long as the context lasts."""

    def agreed(session: TokenSession) -> Intake:
        if head.ephemeral_key is None:
            raise ValueError("a batch that was looked at has an ephemeral key")
        sweep_nameless(session)
        opened = open_transport(session, head.ephemeral_key)
        return Intake(head, session, session.token.info.serial, opened)

    transport = _Transport(hsm, hsm.use(agreed))
    try:
        yield transport
    finally:
        hsm.use(transport.end)


def _check_transport_key(head: BatchHead, session: TokenSession) -> None:
    if head.host_transport_key != host_transport_key(session):
        raise RefusedError(
            "The batch was made for another Host's transport key; mint it anew for "
            "the key that `carnet-host transport-key` prints here."
        )


def _try(intake: Intake, pair: BatchPair) -> None:
    """Refuse the batch unless the HSM can use such keys; nothing of it stays."""
    try:
        intake.try_pair(pair)
    except TokenCannotError as error:
        raise RefusedError(f"This Host's HSM cannot serve the batch: {error}") from error


def _check_pairs_stand(batch: BatchFile, database: KeyDatabase) -> None:
    """Refuse the batch where it brings pairs that are known to be no such pairs any more."""
    found: Counter[str] = Counter()
    named: list[str] = []
    for some in batched(batch.pairs(), _AT_ONCE):
        like = _new_pair(batch.head, some[0])
        odd = database.at_odds(like, [id_of(pair) for pair in some])
        found.update(word for word, _ in odd)
        named += [key_id.hex() for _, key_id in odd[: _NAMED - len(named)]]
    if found:
        words = ", ".join(f"{number} already {word}" for word, number in sorted(found.items()))
        raise RefusedError(
            f"The batch is refused whole: of its {counted(batch.count, 'key pair')} "
            f"{found.total()} cannot be used ({words}), namely {_listed(named, found.total())}; "
            f"have new keys made and mint or adopt these."
        )


def _listed(named: list[str], total: int) -> str:
    more = total - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _wanted(batch: BatchFile, database: KeyDatabase, store: KeyStore) -> Iterator[list[BatchPair]]:
    """Yield, in portions, the pairs that this HSM shall hold."""
    for some in batched(batch.pairs(), _AT_ONCE):
        wanted = store.wanted(batch.head, [id_of(pair) for pair in some], database)
        yield [pair for pair in some if id_of(pair) in wanted]


def _one_of_each_size(portions: Iterator[list[BatchPair]]) -> list[BatchPair]:
    first: dict[int, BatchPair] = {}
    for pair in chain.from_iterable(portions):
        first.setdefault(len(pair.public_key), pair)
    return list(first.values())


def _new_pair(head: BatchHead, pair: BatchPair) -> NewPair:
    return NewPair(
        key_id=id_of(pair),
        user_id=head.user_id,
        token_serial=head.token_serial,
        batch_id=head.batch_id,
        label=pair.label,
        custody=head.custody,
        suite=head.suite,
        public_key=pair.public_key,
        not_after=head.not_after,
        host_key_id=key_id_of(head.host_transport_key) if head.custody == SPLIT else None,
    )
