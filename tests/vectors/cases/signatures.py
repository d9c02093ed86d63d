"""What a seal that opens may hide: COSE_Sign1, its binding, the payload's form."""

from typing import Any

from tests.vectors.case import Case, bad, good
from tests.vectors.cases import requests, responses
from tests.vectors.cases.requests import PAIR
from tests.vectors.encoding import Raw, encode, head, sorted_items
from tests.vectors.protocol import P384, Pair, info_of, seal, sign1
from tests.vectors.values import changed, grant, request

_INFO = info_of(PAIR.key_id)
_PAYLOAD = encode(request())
_PARTS = sign1(_PAYLOAD, _INFO, PAIR)
_PROTECTED, _, _, _SIGNATURE = _PARTS
_STRANGER = Pair("a stranger's pair")
_ITEMS = sorted_items(request())
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def _by(pair: Pair = PAIR, info: bytes = _INFO, payload: bytes = _PAYLOAD) -> bytes:
    return encode(sign1(payload, info, pair))


def _with(position: int, part: Any) -> bytes:
    return encode([*_PARTS[:position], part, *_PARTS[position + 1 :]])


def _bound(**binding: Any) -> bytes:
    return _by(info=info_of(PAIR.key_id, **binding))


SIGNED: dict[str, tuple[str, bytes, str]] = {
    "signed-by-a-stranger": ("Another key signed.", _by(_STRANGER), "signature"),
    "signed-for-another-direction": ("A response.", _bound(direction="response"), "signature"),
    "signed-for-another-suite": ("Suite 3.", _bound(suite=3), "signature"),
    "signed-for-a-binding": ("A digest.", _bound(binding=bytes(32)), "signature"),
    "signed-for-another-key-id": (
        "Another pair's key_id.",
        _by(info=info_of(_STRANGER.key_id)),
        "signature",
    ),
    "signed-for-nothing": ("No external_aad.", _by(info=b""), "signature"),
    "signature-bit": ("One bit.", _with(3, bytes([_SIGNATURE[0] ^ 1]) + _SIGNATURE[1:]),
                      "signature"),
    "signature-zero": ("r and s are 0.", _with(3, bytes(64)), "signature"),
    "signature-r-too-large": (
        "r is the group's order.", _with(3, _N.to_bytes(32, "big") + _SIGNATURE[32:]), "signature"
    ),
    "signature-short": ("63 bytes.", _with(3, _SIGNATURE[:-1]), "signature"),
    "signature-long": ("65 bytes.", _with(3, _SIGNATURE + b"\0"), "signature"),
    "signature-padded": (
        "A zero before r, and one before s.",
        _with(3, b"\0" + _SIGNATURE[:32] + b"\0" + _SIGNATURE[32:]),
        "signature",
    ),
    "signature-empty": ("No signature.", _with(3, b""), "signature"),
    "signature-swapped": ("s ‖ r.", _with(3, _SIGNATURE[32:] + _SIGNATURE[:32]), "signature"),
    "payload-exchanged": ("Another payload.", _with(2, encode(request() | {"objective_id": 1})),
                          "signature"),
    "algorithm-es384": ("ES384.", encode(sign1(_PAYLOAD, _INFO, PAIR, -35)), "suite"),
    "algorithm-hmac": ("HMAC 256.", encode(sign1(_PAYLOAD, _INFO, PAIR, 5)), "suite"),
    "protected-empty": ("No algorithm.", _with(0, b""), "suite"),
    "protected-surplus": ("A second header.", _with(0, encode({1: -7, 4: b"k"})), "suite"),
    "protected-long-head": ("-7 in two bytes.", _with(0, b"\xa1\x01\x38\x06"), "suite"),
    "unprotected-header": ("A header unprotected.", _with(1, {4: b"k"}), "framing"),
    "unprotected-null": ("No map.", _with(1, None), "framing"),
    "payload-detached": ("No payload.", _with(2, None), "framing"),
    "signature-text": ("Text.", _with(3, "a"), "framing"),
    "protected-map": ("A map, unwrapped.", _with(0, {1: -7}), "framing"),
    "sign1-tagged": ("Tag 18.", head(6, 18) + encode(_PARTS), "framing"),
    "sign1-three-parts": ("No signature.", encode(_PARTS[:3]), "framing"),
    "sign1-not-cbor": ("No CBOR.", b"\x1c", "framing"),
    "sign1-empty": ("Nothing.", b"", "framing"),
    "sign1-trailing-byte": ("A byte after the end.", encode(_PARTS) + b"\0", "canonical form"),
    "sign1-indefinite": (
        "An array without length.", b"\x9f" + encode(_PARTS)[1:] + b"\xff", "canonical form"
    ),
}  # fmt: skip

PAYLOADS: dict[str, tuple[str, bytes, str]] = {
    "payload-empty": ("Nothing signed.", b"", "framing"),
    "payload-not-cbor": ("No CBOR.", b"\x1c", "framing"),
    "payload-truncated": ("The last byte is missing.", _PAYLOAD[:-1], "framing"),
    "payload-bad-utf8": ("Text that is no UTF-8.", b"\x62\xc3\x28", "framing"),
    "payload-doubled-field": (
        "A field twice.",
        head(5, 5) + b"".join([*_ITEMS, _ITEMS[0]]),
        "framing",
    ),
    "payload-array": ("An array.", encode(list(request().values())), "field"),
    "payload-null": ("Null.", encode(None), "field"),
    "payload-trailing-byte": ("A byte after the end.", _PAYLOAD + b"\0", "canonical form"),
    "payload-out-of-order": (
        "Fields in another order.",
        head(5, 4) + b"".join(reversed(_ITEMS)),
        "canonical form",
    ),
    "payload-indefinite": (
        "A map without length.",
        b"\xbf" + _PAYLOAD[1:] + b"\xff",
        "canonical form",
    ),
    "payload-long-head": (
        "A number in two bytes.",
        encode(request() | {"objective_id": Raw(b"\x18\x03")}),
        "canonical form",
    ),
    "payload-float": (
        "3.0 for 3.",
        encode(request() | {"objective_id": Raw(b"\xf9\x42\x00")}),
        "field",
    ),
    "payload-set": (
        "A set (tag 258) in the place of an array.",
        encode(changed(request(), "request_info.networks", Raw(b"\xd9\x01\x02\x80"))),
        "framing",
    ),
    "payload-integer-key": (
        "A field by number.",
        encode({**request(), 1: 1}),
        "field",
    ),
}


def cases() -> list[Case]:
    """Return what is refused once the seal is open, and evidence as Target sees it."""
    return [
        *(
            bad(f"request-{name}", text, "open request", _sealed(name, signed), fault)
            for name, (text, signed, fault) in SIGNED.items()
        ),
        *(
            bad(f"request-{name}", text, "open request", _sealed(name, _by(payload=data)), fault)
            for name, (text, data, fault) in PAYLOADS.items()
        ),
        *_responses(),
        *_evidence(),
    ]


def _sealed(name: str, signed: bytes) -> dict[str, bytes]:
    sealed = seal(signed, PAIR, _INFO, f"request-{name}")
    return requests.inputs(encode([1, 1, PAIR.key_id, sealed]))


def _responses() -> list[Case]:
    payload = encode(grant())
    right = info_of(PAIR.key_id, "response", responses.DIGEST)
    wrong = {
        "signed-by-a-stranger": (right, _STRANGER),
        "signed-for-another-direction": (
            info_of(PAIR.key_id, "request", responses.DIGEST), PAIR),
        "signed-for-another-request": (info_of(PAIR.key_id, "response", bytes(32)), PAIR),
        "signed-for-another-key-id": (
            info_of(_STRANGER.key_id, "response", responses.DIGEST), PAIR),
        "signed-for-another-suite": (
            info_of(PAIR.key_id, "response", responses.DIGEST, 3), PAIR),
    }  # fmt: skip
    found = []
    for name, (info, pair) in wrong.items():
        sealed = seal(_by(pair, info, payload), PAIR, right, f"response-{name}")
        given = responses.inputs(encode([1, 1, PAIR.key_id, sealed]))
        found.append(
            bad(f"response-{name}", "Sealed rightly.", "open response", given, "signature")
        )
    return found


def _evidence() -> list[Case]:
    given = {"public_key": PAIR.spki, "evidence": encode(_PARTS)}
    other = Pair("a P-384 pair", P384)
    operation = "verify evidence"
    return [
        good("evidence", "What Host passes on to Target.", operation, given, payload=_PAYLOAD),
        bad("evidence-under-another-key", "Not the key that signed.", operation,
            given | {"public_key": _STRANGER.spki}, "signature"),
        bad("evidence-key-of-another-curve", "A P-384 key.", operation,
            given | {"public_key": other.spki}, "field"),
        bad("evidence-key-not-a-key", "No SubjectPublicKeyInfo.", operation,
            given | {"public_key": bytes(91)}, "field"),
        bad("evidence-with-a-response", "A response in the place of a request.", operation,
            given | {"evidence": _by(payload=encode(grant()))}, "field"),
    ]  # fmt: skip
