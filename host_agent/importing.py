"""Taking a batch of key pairs in: what the HSM holds of it first, then the Key Database.

A pair that the Key Database knows stays as it is, whatever became of it: importing
a batch twice changes nothing, and what is spent stays spent. Whoever is interrupted
imports the batch again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from filelock import FileLock, Timeout

from carnet import crash
from carnet.errors import RefusedError, TokenCannotError, UsageError
from carnet.files import private_directory, read_small
from carnet.token.nameless import sweep_nameless
from carnet.token.onetime import is_pair_label
from carnet.token.session import TokenSession
from carnet.token.transport import UnwrappingKey, host_transport_key, open_transport
from carnet.wire.documents import MAX_BATCH, Batch, BatchPair, verify_document
from carnet.wire.envelope import SPLIT
from carnet.wire.fault import WireError
from carnet.wire.keys import key_id_of, load_public_key
from carnet.wire.suites import find_suite, name_of, numbers_of
from host_agent.config import HostConfig
from host_agent.keydb import KeyDatabase, KeyStoreName, NewPair
from host_agent.keystore.store import Intake, KeyStore, id_of, oaep_of
from host_agent.keystore.stores import store_of
from host_agent.split_batch import check_split_batch

_ON_TOKEN = store_of(KeyStoreName.TOKEN)


@contextmanager
def alone(config: HostConfig) -> Iterator[None]:
    """Be the only import on this machine: two would put the same keys on the HSM twice.

    Raises UsageError if another one runs.
    """
    try:
        with FileLock(private_directory(config.directory) / "import.lock", timeout=0, mode=0o600):
            yield
    except Timeout as error:
        raise UsageError("Another import runs; wait until it is over.") from error


def read_batch(path: Path, config: HostConfig) -> Batch:
    """Return a batch that the registered officer signed, for a user of this Host.

    Raises UsageError if a file cannot be read, RefusedError if the batch is not hers,
    was changed, is cut short, is for a user of another Host or of a suite not allowed here.
    """
    try:
        with path.open("rb") as file:
            signed = file.read(MAX_BATCH + 1)
    except OSError as error:
        raise UsageError(f"Cannot read the batch {path}: {error.strerror}.") from error
    try:
        batch = verify_document(signed, Batch, _officer_key(config.officer))
    except WireError as error:
        raise RefusedError(
            f"The batch {path} is refused ({error}); get it again from the officer registered "
            f"here ({config.officer})."
        ) from error
    if batch.user_id.partition("@")[2] != config.name:
        raise RefusedError(
            f"The batch {path} is for {batch.user_id}, and this Host speaks for @{config.name} "
            f"only; import it at her own Host."
        )
    if batch.suite not in numbers_of(config.suites):
        raise RefusedError(
            f"The batch {path} is of suite {name_of(batch.suite)}, which is not among the `suites` "
            f"of this Host's configuration; allow it there, or have other key pairs minted."
        )
    return batch


def wrapped_onto_hsm(
    batch: Batch, session: TokenSession, database: KeyDatabase, store: KeyStore = _ON_TOKEN
) -> Iterator[bytes]:
    """Take the batch's private keys in, each tried on the HSM; yield the key_id of each new one.

    A batch in custody `split` brings none, and is only checked.
    Raises RefusedError, before anything is changed, if the batch was made for another
    Host or cannot be used here, by this HSM for one; TokenError if a wrapped key is not
    what it says.
    """
    if batch.custody == SPLIT:
        check_split_batch(batch, session)
        return
    ephemeral_key = _check(batch, session)
    sweep_nameless(session)
    with open_transport(session, ephemeral_key) as transport:
        new = [each for each in batch.pairs if database.find_pair(id_of(each)) is None]
        _try(new, transport, oaep_of(batch))
        yield from store.take_in(Intake(batch, new, session, database, transport))


def store_for(batch: Batch, config: HostConfig) -> KeyStore:
    """Return the key store of new pairs; a batch in custody `split` has nothing to keep."""
    return _ON_TOKEN if batch.custody == SPLIT else store_of(config.token.key_store)


def check_kept(
    batch: Batch,
    key_ids: list[bytes],
    session: TokenSession,
    database: KeyDatabase,
    store: KeyStore = _ON_TOKEN,
) -> None:
    """Raise TokenError unless the HSM, asked anew, kept what was taken in.

    In a new session: a token may report success for a key that it could not write
    whole, and shows the loss only when it is opened again.
    """
    store.check_kept(batch, key_ids, session, database)
    crash.reach("import.kept")


def record_batch(batch: Batch, database: KeyDatabase, store: KeyStore = _ON_TOKEN) -> int:
    """Take the batch's pairs into the Key Database as valid; return how many were new."""
    new = sum(_record(batch, pair, database, store) for pair in batch.pairs)
    crash.reach("import.recorded")
    store.finish(batch, database)
    return new


def _record(batch: Batch, pair: BatchPair, database: KeyDatabase, store: KeyStore) -> bool:
    new = store.record(_new_pair(batch, pair), pair.wrapped or b"", batch, database)
    crash.reach("import.pair-recorded")
    return new


def _check(batch: Batch, session: TokenSession) -> bytes:
    """Refuse the whole batch before anything is changed; return its ephemeral key."""
    if batch.host_transport_key != host_transport_key(session):
        raise RefusedError(
            "The batch was made for another Host's transport key; mint it anew for "
            "the key that `carnet-host transport-key` prints here."
        )
    if batch.custody != "paired" or batch.ephemeral_key is None:
        raise RefusedError(f"Custody {batch.custody} is not served by this version.")
    try:
        suite = find_suite(batch.suite)
        for pair in batch.pairs:
            load_public_key(pair.public_key, suite)
    except WireError as error:
        raise RefusedError(f"The batch cannot be used here ({error}); mint it anew.") from error
    if any(pair.wrapped is None or not is_pair_label(pair.label) for pair in batch.pairs):
        raise RefusedError("The batch has pairs without a private key or label; mint it anew.")
    return batch.ephemeral_key


def _try(
    pairs: list[BatchPair], transport: UnwrappingKey, oaep: hashes.HashAlgorithm | None
) -> None:
    """Refuse the batch unless the HSM can use its keys: one of each size is tried and dropped."""
    for pair in {len(each.public_key): each for each in reversed(pairs)}.values():
        try:
            if pair.wrapped is not None:
                transport.try_pair(id_of(pair), pair.public_key, pair.wrapped, oaep)
        except TokenCannotError as error:
            raise RefusedError(f"This Host's HSM cannot serve the batch: {error}") from error


def _new_pair(batch: Batch, pair: BatchPair) -> NewPair:
    return NewPair(
        key_id=id_of(pair),
        user_id=batch.user_id,
        token_serial=batch.token_serial,
        batch_id=batch.batch_id,
        label=pair.label,
        custody=batch.custody,
        suite=batch.suite,
        public_key=pair.public_key,
        not_after=batch.not_after,
        host_key_id=key_id_of(batch.host_transport_key) if batch.custody == SPLIT else None,
    )


def _officer_key(path: Path) -> ec.EllipticCurvePublicKey:
    try:
        key = x509.load_pem_x509_certificate(read_small(path)).public_key()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"Cannot read the officer's certificate {path}; copy her officer.crt there."
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UsageError(f"{path} is not the certificate of a Carnet officer.")
    return key
