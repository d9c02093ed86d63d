"""A batch of any length, read as a stream: no more of it is held than one pair.

What is signed is known only when all of it has been read. So a batch is read several
times: once to verify the signature, before anything is decoded, and then as often as
somebody wants its pairs. Each reading hashes the bytes anew, and ends in an error unless
they are those whose signature holds.
"""

from collections.abc import Callable, Iterator

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from carnet.wire import cbor
from carnet.wire.documents import (
    MAX_BATCH,
    MAX_PAIRS,
    Batch,
    BatchHead,
    BatchPair,
    purpose_of,
)
from carnet.wire.fault import Fault, WireError
from carnet.wire.suites import P256

Read = Callable[[int], bytes]
"""Return the next bytes of a file, so many or fewer; none at its end."""

_PIECE = 64 * 1024
_MAX_PAIR = 8 * 1024
_MAX_HEAD = 8 * 1024
_MAX_ITEMS = 16
"""Of a pair: few, but more than it has."""
_PROTECTED = cbor.encode({1: P256.cose_algorithm})
_START = cbor.encode_head(cbor.ARRAY, 4) + cbor.encode(_PROTECTED) + cbor.encode({})
_SIGNED = cbor.encode_head(cbor.ARRAY, 4) + b"".join(
    map(cbor.encode, ("Signature1", _PROTECTED, purpose_of(Batch)))
)
_SIGNATURE = cbor.encode_head(cbor.BYTES, 2 * P256.coordinate)
_FIELDS = len(Batch.__struct_fields__)
_PAIRS = cbor.encode_head(cbor.MAP, _FIELDS) + cbor.encode("pairs")
"""How the payload begins: in the deterministic encoding the shortest key comes first."""
_OTHERS = cbor.encode_head(cbor.MAP, _FIELDS - 1)


def verify_batch(read: Read, key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the digest of what is signed; WireError where this key did not sign it."""
    run = _Run(read)
    run.skip()
    digest, signature = run.finish()
    if P256.signature_length(key) != len(signature) or not P256.verify(signature, digest, key):
        raise WireError(Fault.SIGNATURE, "the signature does not hold")
    return digest


def read_batch_head(read: Read, digest: bytes) -> tuple[BatchHead, int]:
    """Return what a verified batch says of all its pairs, and how many there are.

    Raises WireError as the pairs() of it do.
    """
    scan = BatchScan(read, digest)
    for _ in range(scan.count):
        scan.skip_pair()
    return scan.end(), scan.count


def read_batch_pairs(read: Read, digest: bytes) -> Iterator[BatchPair]:
    """Yield the pairs of a verified batch.

    Nothing counts before the last: whoever acts on them must be able to undo it. Raises
    WireError: at the end where the bytes are not those of that digest, and before it for
    what is no batch in the deterministic encoding.
    """
    scan = BatchScan(read, digest)
    for _ in range(scan.count):
        yield scan.pair()
    scan.end()


class BatchScan:
    """One reading of a batch: its pairs, so many as it counts, and then what they share."""

    def __init__(self, read: Read, digest: bytes) -> None:
        self._run = _Run(read)
        self._digest = digest
        if self._run.take(len(_PAIRS)) != _PAIRS:
            raise WireError(Fault.FIELD, "not a batch")
        major, self.count, _ = cbor.read_head(self._run.take)
        if major != cbor.ARRAY or not 1 <= self.count <= MAX_PAIRS:
            raise WireError(Fault.FIELD, f"not 1 to {MAX_PAIRS} key pairs")

    def pair(self) -> BatchPair:
        """Return the next pair."""
        return cbor.unpack(self.skip_pair(), BatchPair, _MAX_PAIR)

    def skip_pair(self) -> bytes:
        """Return the bytes of the next item, which should be a pair."""
        return _take_item(self._run.take, _MAX_PAIR)

    def end(self) -> BatchHead:
        """Return what all pairs share, after the last; raises WireError as the module says."""
        others = self._run.take_rest(_MAX_HEAD)
        digest, _ = self._run.finish()
        if digest != self._digest:
            raise WireError(Fault.SIGNATURE, "the file was changed while it was read")
        return cbor.unpack(_OTHERS + others, BatchHead, _MAX_HEAD + len(_OTHERS))


class _Run:
    """One run over the file: gives the payload in pieces, and hashes the Sig_structure.

    That is RFC 9052 section 4.4; its parts but the payload are known beforehand.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._piece, self._at = b"", 0
        if self._raw(len(_START)) != _START:
            raise WireError(Fault.FRAMING, "not a COSE_Sign1 of an officer")
        major, self._unread, head = cbor.read_head(self._raw)
        if major != cbor.BYTES or self._unread > MAX_BATCH:
            raise WireError(Fault.FRAMING, f"no payload of at most {MAX_BATCH} bytes")
        self._hash = hashes.Hash(P256.hash)
        self._hash.update(_SIGNED + head)

    def take(self, count: int) -> bytes:
        """Return the next so many bytes of the payload."""
        while len(self._piece) - self._at < count:
            self._piece, self._at = self._piece[self._at :] + self._next_piece(), 0
        taken = self._piece[self._at : self._at + count]
        self._at += count
        return taken

    def take_rest(self, most: int) -> bytes:
        """Return what is left of the payload, if it is no more than that."""
        left = len(self._piece) - self._at + self._unread
        if left > most:
            raise WireError(Fault.FRAMING, "more bytes than its count of key pairs explains")
        return self.take(left)

    def skip(self) -> None:
        """Go to the end of the payload."""
        while self._unread:
            self._next_piece()

    def finish(self) -> tuple[bytes, bytes]:
        """Return, at the payload's end, the digest and the signature, with which the file ends."""
        if self._raw(len(_SIGNATURE)) != _SIGNATURE:
            raise WireError(Fault.FRAMING, "no signature where one should be")
        signature = self._raw(2 * P256.coordinate)
        if self._read(1):
            raise WireError(Fault.CANONICAL, "bytes behind its end")
        return self._hash.finalize(), signature

    def _next_piece(self) -> bytes:
        piece = self._read(min(_PIECE, self._unread))
        if not piece:
            raise WireError(Fault.FRAMING, "cut short")
        self._unread -= len(piece)
        self._hash.update(piece)
        return piece

    def _raw(self, count: int) -> bytes:
        """Return bytes from outside the payload."""
        taken = b""
        while len(taken) < count:
            more = self._read(count - len(taken))
            if not more:
                raise WireError(Fault.FRAMING, "cut short")
            taken += more
        return taken


_CHILDREN = {cbor.ARRAY: 1, cbor.MAP: 2}
"""Items in a container for each that its head counts."""


def _take_item(take: Callable[[int], bytes], most: int) -> bytes:
    """Return the bytes of one whole item; how it is encoded shows when it is decoded."""
    item = b""
    items, wanted = 0, 1
    while items < wanted:
        major, argument, head = cbor.read_head(take)
        item += head
        items += 1
        wanted += argument * _CHILDREN.get(major, 0)
        if wanted > _MAX_ITEMS:
            raise WireError(Fault.FIELD, "not a key pair")
        if major in cbor.STRINGS:
            if len(item) + argument > most:
                raise WireError(Fault.FIELD, "a key pair that is too long")
            item += take(argument)
    return item
