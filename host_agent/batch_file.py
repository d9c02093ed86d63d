"""The file of a batch: verified when it is opened, then read as often as its pairs are wanted.

Its signature comes first, and says whose pairs they are; to look at each of them takes longer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from carnet.errors import RefusedError, UsageError
from carnet.files import open_regular, read_small
from carnet.token.onetime import is_pair_label
from carnet.wire.batches import read_batch_head, read_batch_pairs, verify_batch
from carnet.wire.documents import BatchHead, BatchPair
from carnet.wire.envelope import PAIRED
from carnet.wire.fault import Fault, WireError
from carnet.wire.keys import KEY_ID_LENGTH, key_id_of, load_public_key
from carnet.wire.split import host_suite
from carnet.wire.suites import find_suite, name_of, numbers_of
from host_agent.config import HostConfig


@dataclass(frozen=True)
class BatchFile:
    """A batch that the registered officer signed, for a user of this Host."""

    shown: str
    """What people call it."""
    file: FileIO
    digest: bytes
    """Of what she signed."""
    head: BatchHead
    count: int
    refusal: str
    """What is said of a file that turns out to be no whole batch."""

    def pairs(self) -> Iterator[BatchPair]:
        """Yield the pairs, from the first.

        Nothing counts before the last: raises RefusedError at the end if the file was
        changed since its signature held.
        """
        with _reading(self.shown), _refusing(self.refusal):
            self.file.seek(0)
            yield from read_batch_pairs(self.file.read, self.digest)

    def check_pairs(self) -> None:
        """Raise RefusedError unless every pair is in itself right."""
        with _refusing(f"{self.shown} cannot be used here ({{}}); have it minted anew."):
            _check_pairs(self)

    def one(self) -> BatchPair:
        """Return a pair to try a key with, which is worth no more than that."""
        return next(self.pairs())


@contextmanager
def batch_at(path: Path, config: HostConfig) -> Iterator[BatchFile]:
    """Open the batch at a path, each pair looked at; raises as open_batch(), check_pairs() do."""
    try:
        file = open_regular(path)
    except OSError as error:
        raise UsageError(
            f"Cannot read the batch {path}: {error.strerror}; correct the path."
        ) from error
    with file:
        batch = open_batch(file, f"The batch {path}", config)
        batch.check_pairs()
        yield batch


def open_batch(file: FileIO, shown: str, config: HostConfig) -> BatchFile:
    """Return a batch that the registered officer signed, for a user of this Host.

    `shown` is what people call it. No pair counts before check_pairs(). Raises UsageError if a
    file cannot be read, RefusedError if the batch is not hers, was changed, is cut short, or is
    for a user of another Host or of a suite not allowed here.
    """
    refusal = (
        f"{shown} is refused ({{}}); get it again from the officer registered here "
        f"({config.officer})."
    )
    officer = officer_key(config.officer)
    with _reading(shown), _refusing(refusal):
        file.seek(0)
        digest = verify_batch(file.read, officer)
        file.seek(0)
        head, count = read_batch_head(file.read, digest)
    _check_head(shown, head, config)
    return BatchFile(shown, file, digest, head, count, refusal)


@contextmanager
def _reading(shown: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{shown} cannot be read: {error.strerror}; get it again and try once more."
        ) from error


@contextmanager
def _refusing(sentence: str) -> Iterator[None]:
    try:
        yield
    except WireError as error:
        raise RefusedError(sentence.format(error)) from error


def _check_head(shown: str, head: BatchHead, config: HostConfig) -> None:
    if head.user_id.partition("@")[2] != config.name:
        raise RefusedError(
            f"{shown} is for {head.user_id}, and this Host speaks for @{config.name} "
            f"only; import it at her own Host."
        )
    if head.suite not in numbers_of(config.suites):
        raise RefusedError(
            f"{shown} is of suite {name_of(head.suite)}, which is not among the `suites` "
            f"of this Host's configuration; allow it there, or have other key pairs minted."
        )


def _check_pairs(batch: BatchFile) -> None:
    """Raise WireError unless each pair is one of the batch's suite and custody, and no two same."""
    head = batch.head
    paired = head.custody == PAIRED
    if paired != (head.ephemeral_key is not None):
        raise WireError(Fault.FIELD, f"an ephemeral key does not go with custody {head.custody}")
    suite = find_suite(head.suite)
    if not paired:
        load_public_key(head.host_transport_key, host_suite(suite))
    seen, load = _KeyIds(), partial(load_public_key, suite=suite)
    for pair in batch.pairs():
        load(pair.public_key)
        if paired != (pair.wrapped is not None):
            raise WireError(Fault.FIELD, f"a private key does not go with custody {head.custody}")
        if not is_pair_label(pair.label):
            raise WireError(Fault.FIELD, "a pair without the label of one")
        seen.add(key_id_of(pair.public_key))
    if seen.has_twice():
        raise WireError(Fault.FIELD, "the same key pair twice")


class _KeyIds:
    """The key_ids of a batch, in as few bytes as they have; a set of objects takes eight times."""

    def __init__(self) -> None:
        self._by_first = [bytearray() for _ in range(256)]

    def add(self, key_id: bytes) -> None:
        self._by_first[key_id[0]] += key_id

    def has_twice(self) -> bool:
        return any(_has_twice(bytes(each)) for each in self._by_first)


def _has_twice(key_ids: bytes) -> bool:
    starts = range(0, len(key_ids), KEY_ID_LENGTH)
    return len({key_ids[at : at + KEY_ID_LENGTH] for at in starts}) < len(starts)


def officer_certificate(path: Path) -> x509.Certificate:
    """Return the registered officer's certificate; raises UsageError."""
    try:
        return x509.load_pem_x509_certificate(read_small(path))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"Cannot read the officer's certificate {path}; copy her officer.crt there."
        ) from error


def officer_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Return the registered officer's key; raises UsageError."""
    key = officer_certificate(path).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UsageError(f"{path} is not the certificate of a Carnet officer.")
    return key
