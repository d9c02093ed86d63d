"""What can be seen from outside: framing, canonical form, version, suite, seal, key."""

from typing import Any

from tests.vectors.case import Case, bad
from tests.vectors.cases import requests, responses
from tests.vectors.cases.requests import PAIR
from tests.vectors.encoding import Raw, encode, head
from tests.vectors.protocol import Pair, info_of, seal, sign1
from tests.vectors.values import refusal, request

_PAYLOAD = encode(request())
_MESSAGE = requests.seal_request("request-defaults", _PAYLOAD)
_KEY_ID = PAIR.key_id
_SEALED = _MESSAGE[-len(seal(encode(sign1(_PAYLOAD, b"", PAIR)), PAIR, b"", "length")) :]
_OFF_CURVE = b"\x04" + bytes(63) + b"\x01"


def _bit(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def _sealed_as(name: str, signed: bytes, **binding: Any) -> bytes:
    """Return a message whose seal alone is bound to something else."""
    return encode([1, 1, _KEY_ID, seal(signed, PAIR, info_of(_KEY_ID, **binding), name)])


_SIGNED = encode(sign1(_PAYLOAD, info_of(_KEY_ID), PAIR))
_FORGED = Pair("another pair")

SEEN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("No bytes at all.", b"", "framing"),
    "truncated": ("The last byte is missing.", _MESSAGE[:-1], "framing"),
    "too-large": ("8193 bytes.", encode([1, 1, _KEY_ID, bytes(8193 - 23)]), "framing"),
    "too-deep": ("Nine arrays deep.", b"\x81" * 9 + b"\x00", "framing"),
    "huge-length": ("A length that nothing follows.", b"\x5b" + b"\xff" * 8, "framing"),
    "reserved-head": ("A head that CBOR reserves.", b"\x9c", "framing"),
    "map": ("A map where an array belongs.", encode({"version": 1}), "framing"),
    "three-parts": ("No sealed part.", encode([1, 1, _KEY_ID]), "framing"),
    "five-parts": ("A part too many.", encode([1, 1, _KEY_ID, _SEALED, None]), "framing"),
    "tagged": ("A tag before the array.", head(6, 18) + _MESSAGE, "framing"),
    "key-id-short": ("15 bytes.", encode([1, 1, _KEY_ID[:15], _SEALED]), "framing"),
    "key-id-long": ("17 bytes.", encode([1, 1, _KEY_ID + b"\0", _SEALED]), "framing"),
    "key-id-text": ("Text.", encode([1, 1, "0123456789abcdef", _SEALED]), "framing"),
    "suite-true": ("A suite that is no number.", encode([1, True, _KEY_ID, _SEALED]), "framing"),
    "suite-text": ("A suite that is no number.", encode([1, "1", _KEY_ID, _SEALED]), "framing"),
    "sealed-null": ("A sealed part that is none.", encode([1, 1, _KEY_ID, None]), "framing"),
    "sealed-text": ("Text for the sealed part.", encode([1, 1, _KEY_ID, "a"]), "framing"),
    "trailing-byte": ("A byte after the end.", _MESSAGE + b"\x00", "canonical form"),
    "doubled": ("The same message twice.", _MESSAGE * 2, "canonical form"),
    "array-indefinite": ("No length.", b"\x9f" + _MESSAGE[1:] + b"\xff", "canonical form"),
    "array-long-head": ("A head too long.", b"\x98\x04" + _MESSAGE[1:], "canonical form"),
    "version-long-head": ("1 in two bytes.", b"\x84\x18\x01" + _MESSAGE[2:], "canonical form"),
    "suite-long-head": ("1 in three.", b"\x84\x01\x19\0\x01" + _MESSAGE[3:], "canonical form"),
    "key-id-long-head": (
        "A key_id's length in two bytes.",
        encode([1, 1, Raw(b"\x58\x10" + _KEY_ID), _SEALED]),
        "canonical form",
    ),
    "key-id-in-chunks": (
        "A key_id in two chunks.",
        encode([1, 1, Raw(b"\x5f\x48" + _KEY_ID[:8] + b"\x48" + _KEY_ID[8:] + b"\xff"), _SEALED]),
        "canonical form",
    ),
    "version-bignum": (
        "1 as a bignum.",
        encode([Raw(b"\xc2\x41\x01"), 1, _KEY_ID, _SEALED]),
        "framing",
    ),
    "version-double": (
        "1.0 in eight bytes.",
        encode([Raw(b"\xfb\x3f\xf0" + bytes(6)), 1, _KEY_ID, _SEALED]),
        "canonical form",
    ),
    "version-zero": ("Version 0.", encode([0, 1, _KEY_ID, _SEALED]), "version"),
    "version-two": ("Version 2.", encode([2, 1, _KEY_ID, _SEALED]), "version"),
    "version-negative": ("Version -1.", encode([-1, 1, _KEY_ID, _SEALED]), "version"),
    "version-true": ("Version true.", encode([True, 1, _KEY_ID, _SEALED]), "version"),
    "version-float": ("1.0.", encode([Raw(b"\xf9\x3c\x00"), 1, _KEY_ID, _SEALED]), "version"),
    "version-null": ("Version null.", encode([None, 1, _KEY_ID, _SEALED]), "version"),
    "suite-zero": ("Suite 0.", encode([1, 0, _KEY_ID, _SEALED]), "suite"),
    "suite-unknown": ("Suite 5.", encode([1, 5, _KEY_ID, _SEALED]), "suite"),
    "suite-negative": ("Suite -1.", encode([1, -1, _KEY_ID, _SEALED]), "suite"),
    "suite-huge": ("Suite 2^64 - 1.", encode([1, 2**64 - 1, _KEY_ID, _SEALED]), "suite"),
    "sealed-empty": ("Nothing sealed.", encode([1, 1, _KEY_ID, b""]), "seal"),
    "enc-short": ("64 bytes.", encode([1, 1, _KEY_ID, _SEALED[:64]]), "seal"),
    "enc-off-curve": (
        "An encapsulated key that is no point.",
        encode([1, 1, _KEY_ID, _OFF_CURVE + _SEALED[65:]]),
        "seal",
    ),
    "enc-compressed": (
        "A compressed point.",
        encode([1, 1, _KEY_ID, b"\x02" + _SEALED[1:]]),
        "seal",
    ),
    "enc-hybrid-form": (
        "X9.62's hybrid form of the point.",
        encode([1, 1, _KEY_ID, bytes([6 | _SEALED[64] & 1]) + _SEALED[1:]]),
        "seal",
    ),
    "enc-infinity": ("The point at infinity.", encode([1, 1, _KEY_ID, bytes(65)]), "seal"),
    "enc-another": (
        "A point on the curve, but another.",
        encode([1, 1, _KEY_ID, PAIR.point + _SEALED[65:]]),
        "seal",
    ),
    "ciphertext-none": ("No ciphertext.", encode([1, 1, _KEY_ID, _SEALED[:65]]), "seal"),
    "ciphertext-bit": ("One bit.", encode([1, 1, _KEY_ID, _bit(_SEALED, 65)]), "seal"),
    "tag-bit": ("One bit of the tag.", encode([1, 1, _KEY_ID, _bit(_SEALED, -1)]), "seal"),
    "ciphertext-cut": ("A byte less.", encode([1, 1, _KEY_ID, _SEALED[:-1]]), "seal"),
    "moved-to-another-key-id": (
        "A whole request under another key_id.",
        encode([1, 1, _FORGED.key_id, _SEALED]),
        "seal",
    ),
    "sealed-to-another-key": (
        "Sealed to another pair.",
        encode([1, 1, _KEY_ID, seal(_SIGNED, _FORGED, info_of(_KEY_ID), "to another")]),
        "seal",
    ),
    "sealed-for-another-direction": (
        "The seal says response.",
        _sealed_as("direction", _SIGNED, direction="response"),
        "seal",
    ),
    "sealed-for-another-suite": ("Suite 3.", _sealed_as("suite", _SIGNED, suite=3), "seal"),
    "sealed-for-a-binding": (
        "The seal is bound to a digest.",
        _sealed_as("binding", _SIGNED, binding=bytes(32)),
        "seal",
    ),
}


def cases() -> list[Case]:
    """Return the messages that are refused before a signature is looked at."""
    return [
        *(
            bad(f"request-{name}", description, "open request", requests.inputs(data), fault)
            for name, (description, data, fault) in SEEN.items()
        ),
        *_turned_round(),
    ]


def _turned_round() -> list[Case]:
    payload = encode(refusal())
    answer = responses.seal_response("response-turned-round", payload)
    moved = encode([1, 1, _FORGED.key_id, answer[-(len(answer) - 23) :]])
    return [
        _response("trailing-byte", "A byte after the end.", answer + b"\0", "canonical form"),
        _response("truncated", "The last byte is missing.", answer[:-1], "framing"),
        _response("version-two", "Version 2.", b"\x84\x02" + answer[2:], "version"),
        _response("suite-unknown", "Suite 5.", b"\x84\x01\x05" + answer[3:], "suite"),
        _response("too-large", "Over 64 KiB.", head(2, 65536) + bytes(65536), "framing"),
        _response("under-another-key-id", "Another pair answers.", moved, "binding"),
        _response("is-the-request", "The request, sent back.", responses.REQUEST, "seal"),
        bad(
            "response-to-another-request",
            "The answer to another request.",
            "open response",
            responses.inputs(answer, digest=bytes(32)),
            "seal",
        ),
        bad(
            "request-is-a-response",
            "A response, sent as a request.",
            "open request",
            requests.inputs(answer),
            "seal",
        ),
    ]


def _response(name: str, description: str, data: bytes, fault: str) -> Case:
    return bad(f"response-{name}", description, "open response", responses.inputs(data), fault)
