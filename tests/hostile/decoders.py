"""Every decoder that meets bytes which somebody else wrote, with the size that it allows.

Used by the tests of memory and by the fuzz targets. A decoder returns the bytes that
what it read is encoded to again, which must be those it was given; None where it reads
but a part. It raises nothing but what its user expects.
"""

from cryptography.hazmat.primitives.asymmetric import ec

from carnet.ending import MAX_ENDING, verify_ending
from carnet.wire import cbor, cose
from carnet.wire.control import MAX_CONTROL, EndedTunnels, TunnelAnswer, TunnelRequest
from carnet.wire.cover_file import MAX_COVER_FILE, pack_cover_file, unpack_cover_file
from carnet.wire.documents import (
    MAX_COVER,
    Batch,
    Cover,
    ProvedEnding,
    read_unverified,
    verify_document,
)
from carnet.wire.envelope import VERSION, parse_envelope, take_apart, verify_evidence
from carnet.wire.keys import encode_public_key, load_public_key
from carnet.wire.messages import MAX_RESPONSE, Request, Response
from carnet.wire.suites import P256, SUITES
from tests.vectors.protocol import Pair
from tests.vectors.values import REQUEST_ID

_KEY = ec.derive_private_key(1, P256.curve).public_key()
_SPKI = encode_public_key(_KEY)
_OFFICER = Pair("officer").spki
"""The vectors' own; so fuzzing goes on from a word that is believed."""


def sealed_message(data, limit=cbor.MAX_MESSAGE):
    envelope = parse_envelope(data, limit)
    return cbor.encode([VERSION, envelope.suite.number, envelope.key_id, envelope.sealed])


def sealed_response(data):
    return sealed_message(data, MAX_RESPONSE)


def request(data):
    return cbor.pack(cbor.unpack(data, Request))


def response(data):
    return cbor.pack(cbor.unpack_union(data, Response, MAX_RESPONSE))


def tunnel_request(data):
    return cbor.pack(cbor.unpack(data, TunnelRequest, MAX_CONTROL))


def tunnel_answer(data):
    return cbor.pack(cbor.unpack_union(data, TunnelAnswer, MAX_CONTROL))


def ended_tunnels(data):
    return cbor.pack(cbor.unpack(data, EndedTunnels, MAX_CONTROL))


def proved_ending(data):
    return cbor.pack(cbor.unpack(data, ProvedEnding, MAX_ENDING))


def ending(data):
    verify_ending(data, REQUEST_ID, "work", _OFFICER)


def cose_sign1(data):
    cose.payload_of(data)


def evidence(data):
    return verify_evidence(data, _SPKI, P256).evidence


def cover(data):
    verify_document(data, Cover, _KEY)


def unverified_cover(data):
    read_unverified(data, Cover)


def cover_payload(data):
    return cbor.pack(cbor.unpack(data, Cover, MAX_COVER))


def batch(data):
    verify_document(data, Batch, _KEY)


def encapsulated_key(data):
    for suite in SUITES.values():
        suite.check_sealed(data)


def answer_in_split(data):
    envelope = take_apart(data, MAX_RESPONSE)
    return cbor.encode([VERSION, envelope.suite.number, envelope.key_id, envelope.sealed])


def cover_file(data):
    cover_, batches = unpack_cover_file(data)
    return pack_cover_file(cover_, batches)


def public_key(data):
    load_public_key(data, P256)


DECODERS = {
    sealed_message: cbor.MAX_MESSAGE,
    sealed_response: MAX_RESPONSE,
    request: cbor.MAX_MESSAGE,
    response: MAX_RESPONSE,
    tunnel_request: MAX_CONTROL,
    tunnel_answer: MAX_CONTROL,
    ended_tunnels: MAX_CONTROL,
    proved_ending: MAX_ENDING,
    ending: MAX_ENDING,
    cose_sign1: cbor.MAX_MESSAGE,
    evidence: cbor.MAX_MESSAGE,
    cover: MAX_COVER,
    unverified_cover: MAX_COVER,
    cover_payload: MAX_COVER,
    batch: 4 * 1024 * 1024,
    encapsulated_key: MAX_RESPONSE,
    public_key: MAX_RESPONSE,
    answer_in_split: MAX_RESPONSE,
    cover_file: MAX_COVER_FILE,
}
"""With the bytes that each is tried with; a batch may have more, and needs more then."""
