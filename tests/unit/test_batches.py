"""A batch that is read as a stream is the one that was signed, to the byte, or it is none."""

import io

import pytest

from carnet.wire import cbor
from carnet.wire.batches import read_batch_head, read_batch_pairs, verify_batch
from carnet.wire.documents import Batch, BatchHead, purpose_of, sign_document, verify_document
from carnet.wire.fault import Fault, WireError
from carnet.wire.suites import P256
from tests.host.batches import split_batch
from tests.unit.examples import SoftwareKey

OFFICER = SoftwareKey()


class Dribbling(io.BytesIO):
    """A file that gives a few bytes at a time."""

    def read(self, count=-1):
        return super().read(min(count, 7))


def read_whole(data, file=io.BytesIO, key=OFFICER):
    """Read a batch in all the ways that there are; return its head and its pairs."""
    digest = verify_batch(file(data).read, key.key.public_key())
    head, count = read_batch_head(file(data).read, digest)
    pairs = tuple(read_batch_pairs(file(data).read, digest))
    assert len(pairs) == count
    return head, pairs


def signed(payload):
    """Return what the officer signed, whatever it is."""
    protected = cbor.encode({1: -7})
    to_sign = cbor.encode(["Signature1", protected, purpose_of(Batch), payload])
    return cbor.encode([protected, {}, payload, OFFICER.sign(P256.digest(to_sign))])


@pytest.mark.parametrize("file", [io.BytesIO, Dribbling])
@pytest.mark.parametrize("count", [1, 3, 24, 300])
def test_read_as_a_stream_it_says_what_it_says_read_whole(file, count):
    data = sign_document(split_batch(count), OFFICER.sign)
    head, pairs = read_whole(data, file)
    whole = verify_document(data, Batch, OFFICER.key.public_key())
    assert pairs == whole.pairs
    assert head == BatchHead(**{name: getattr(whole, name) for name in head.__struct_fields__})


def test_cut_short_at_any_place_it_is_refused():
    data = sign_document(split_batch(2), OFFICER.sign)
    for length in range(len(data)):
        with pytest.raises(WireError):
            read_whole(data[:length])


def test_changed_at_any_byte_it_is_refused_before_anything_is_decoded():
    data = sign_document(split_batch(2), OFFICER.sign)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(WireError):
            verify_batch(io.BytesIO(changed).read, OFFICER.key.public_key())


def test_with_bytes_behind_its_end_it_is_refused():
    data = sign_document(split_batch(2), OFFICER.sign)
    with pytest.raises(WireError, match="behind its end"):
        read_whole(data + b"\x00")


def test_of_another_officer_it_is_refused():
    data = sign_document(split_batch(2), SoftwareKey().sign)
    with pytest.raises(WireError, match="does not hold"):
        read_whole(data)


def test_another_document_of_the_same_officer_is_none():
    payload = cbor.pack(split_batch(2))
    protected = cbor.encode({1: -7})
    to_sign = cbor.encode(["Signature1", protected, cbor.encode(["carnet", 1, "cover"]), payload])
    data = cbor.encode([protected, {}, payload, OFFICER.sign(P256.digest(to_sign))])
    with pytest.raises(WireError, match="does not hold"):
        read_whole(data)


def test_changed_after_it_was_verified_it_is_refused_at_the_end():
    """Another batch of the same officer in the file's place, as whole and as good."""
    first, second = (sign_document(split_batch(3), OFFICER.sign) for _ in range(2))
    digest = verify_batch(io.BytesIO(first).read, OFFICER.key.public_key())
    pairs = read_batch_pairs(io.BytesIO(second).read, digest)
    assert [next(pairs) for _ in range(3)]
    with pytest.raises(WireError, match="changed while it was read"):
        next(pairs)
    with pytest.raises(WireError, match="changed while it was read"):
        read_batch_head(io.BytesIO(second).read, digest)


def payload_of(batch, **changes):
    fields = cbor.decode(cbor.pack(batch), 10**6)
    return cbor.encode(fields | changes)


def counting(payload, count):
    """Return a payload that counts so many pairs, whatever it has."""
    start = cbor.encode_head(cbor.MAP, 11) + cbor.encode("pairs")
    assert payload.startswith(start + cbor.encode_head(cbor.ARRAY, 3))
    return start + cbor.encode_head(cbor.ARRAY, count) + payload[len(start) + 1 :]


BATCH = split_batch(3)
PAYLOAD = cbor.pack(BATCH)
WIDE = PAYLOAD.replace(b"\x65pairs\x83", b"\x65pairs\x98\x03")
LEFT_OPEN = PAYLOAD.replace(b"\x65pairs\x83", b"\x65pairs\x9f")


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (counting(PAYLOAD, 2), Fault.FRAMING),
        (counting(PAYLOAD, 4), Fault.FRAMING),
        (counting(PAYLOAD, 100_000), Fault.FRAMING),
        (counting(PAYLOAD, 100_001), Fault.FIELD),
        (counting(PAYLOAD, 2**60), Fault.FIELD),
        (payload_of(BATCH, pairs=[]), Fault.FIELD),
        (payload_of(BATCH, pairs="abc"), Fault.FIELD),
        (payload_of(BATCH, pairs=[[]]), Fault.FIELD),
        (payload_of(BATCH, pairs=[{"label": "a", "public_key": bytes(91)}]), Fault.FIELD),
        (payload_of(BATCH, pairs=[[[0] * 100] * 100]), Fault.FIELD),
        (payload_of(BATCH, pairs=[bytes(100_000)]), Fault.FIELD),
        (payload_of(BATCH, custody="mine"), Fault.FIELD),
        (payload_of(BATCH, version=2), Fault.FIELD),
        (payload_of(BATCH, another=1), Fault.FIELD),
        (payload_of(BATCH, user_id="a" * 9000), Fault.FRAMING),
        (PAYLOAD + b"\x00", Fault.CANONICAL),
        (PAYLOAD[:-1], Fault.FRAMING),
        (WIDE, Fault.CANONICAL),
        (LEFT_OPEN, Fault.CANONICAL),
        (cbor.encode([1]), Fault.FRAMING),
        (b"", Fault.FRAMING),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_an_officer_signed_wrongly_is_refused_with_its_fault(payload, fault):
    """Her signature holds: what is wrong is for whoever reads the pairs to find."""
    with pytest.raises(WireError) as caught:
        read_whole(signed(payload))
    assert caught.value.fault is fault


@pytest.mark.parametrize("number", [0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32])
def test_heads_are_those_of_the_library(number):
    assert cbor.encode_head(0, number) == cbor.encode(number)
    taken = io.BytesIO(cbor.encode(number))
    assert cbor.read_head(taken.read) == (0, number, cbor.encode(number))
