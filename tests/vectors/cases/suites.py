"""Suites 2, 3 and 4: what each adds to suite 1, and what each must not take."""

import hashlib
from itertools import count
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.vectors.case import Case, bad, good
from tests.vectors.encoding import encode
from tests.vectors.protocol import P384, AnyPair, Pair, info_of, seal, sign1
from tests.vectors.rsa import RsaPair, derived
from tests.vectors.values import batch, batch_pair, cover, grant, refusal, request

_P256 = Pair("alice's pair")
_PAYLOAD = encode(request())

PAIRS: dict[str, AnyPair] = {
    "suite-3": Pair("alice's pair", P384),
    "suite-2": RsaPair("rsa-2048", 2),
    "suite-2-rsa-3072": RsaPair("rsa-3072", 2),
    "suite-2-rsa-4096": RsaPair("rsa-4096", 2),
    "suite-4": RsaPair("rsa-2048", 4),
    "suite-4-rsa-3072": RsaPair("rsa-3072", 4),
    "suite-4-rsa-4096": RsaPair("rsa-4096", 4),
}
OTHERS: dict[int, AnyPair] = {
    2: RsaPair("rsa-2048-other", 2),
    3: Pair("a stranger's pair", P384),
    4: RsaPair("rsa-2048-other", 4),
}
_SIBLING = {2: 4, 3: 1, 4: 2}
"""Which other suite a message is taken for."""


def cases() -> list[Case]:
    """Return the messages and documents of the suites beside the first."""
    found = [case for name, pair in PAIRS.items() for case in _good(name, pair)]
    for name in ("suite-2", "suite-3", "suite-4"):
        found += _bad_requests(name, PAIRS[name])
        found += _bad_responses(name, PAIRS[name])
        found += _bad_keys(name, PAIRS[name])
    return found


def info(pair: AnyPair, direction: str = "request", binding: bytes = b"", suite: int = 0) -> bytes:
    """Return what a message of a pair is bound to."""
    return info_of(pair.key_id, direction, binding, suite or pair.suite)


def signed_by(pair: AnyPair, bound_to: bytes, payload: bytes = _PAYLOAD) -> bytes:
    """Return a signed message."""
    return encode(sign1(payload, bound_to, pair))


def envelope(pair: AnyPair, sealed: bytes, suite: int = 0) -> bytes:
    """Return a sealed message."""
    return encode([1, suite or pair.suite, pair.key_id, sealed])


def sealed_request(name: str, pair: AnyPair, signed: bytes | None = None) -> bytes:
    """Return a sealed request, right but for what is signed."""
    inside = signed_by(pair, info(pair)) if signed is None else signed
    return envelope(pair, seal(inside, pair, info(pair), f"{name} request"))


def _inputs(pair: AnyPair, message: bytes) -> dict[str, Any]:
    return {"public_key": pair.spki, "private_key": pair.private_bytes, "message": message}


def _answer(name: str, pair: AnyPair, payload: bytes, suite: int = 0) -> dict[str, Any]:
    digest = hashlib.sha256(sealed_request(name, pair)).digest()
    bound_to = info(pair, "response", digest)
    sealed = seal(signed_by(pair, bound_to, payload), pair, bound_to, f"{name} response")
    return _inputs(pair, envelope(pair, sealed, suite)) | {
        "request_digest": digest,
        "suite": pair.suite,
    }


def _good(name: str, pair: AnyPair) -> list[Case]:
    evidence = {"public_key": pair.spki, "suite": pair.suite,
                "evidence": signed_by(pair, info(pair))}  # fmt: skip
    granted, refused = encode(grant()), encode(refusal())
    officer = Pair("officer")
    document = {"suite": pair.suite, "pairs": [batch_pair() | {"public_key": pair.spki}]}
    minted = encode(batch() | document)
    covered = encode(cover() | {"suite": pair.suite})
    return [
        good(f"{name}-request", "A request.", "open request",
             _inputs(pair, sealed_request(name, pair)), payload=_PAYLOAD),
        good(f"{name}-response-grant", "A grant.", "open response",
             _answer(name, pair, granted), payload=granted),
        good(f"{name}-response-refusal", "A refusal.", "open response",
             _answer(name, pair, refused), payload=refused),
        good(f"{name}-evidence", "What Host passes on.", "verify evidence", evidence,
             payload=_PAYLOAD),
        good(f"{name}-batch", "A batch.", "verify batch",
             _document("batch", minted, officer), payload=minted),
        good(f"{name}-cover", "A cover.", "verify cover",
             _document("cover", covered, officer), payload=covered),
    ]  # fmt: skip


def _document(kind: str, payload: bytes, officer: Pair) -> dict[str, bytes]:
    signed = encode(sign1(payload, encode(["carnet", 1, kind]), officer))
    return {"officer_key": officer.spki, "signed": signed}


def _bad_requests(name: str, pair: AnyPair) -> list[Case]:
    wrong = {
        **_wrong_outside(name, pair),
        **{
            text: (description, sealed_request(name, pair, inside), fault)
            for text, (description, inside, fault) in _wrong_inside(pair).items()
        },
    }
    return [
        bad(f"{name}-{text}", description, "open request", _inputs(pair, message), fault)
        for text, (description, message, fault) in wrong.items()
    ]


def _wrong_outside(name: str, pair: AnyPair) -> dict[str, tuple[str, bytes, str]]:
    """Return what is wrong with the seal, whatever is in it."""
    right = seal(signed_by(pair, info(pair)), pair, info(pair), f"{name} request")
    inside, other = signed_by(pair, info(pair)), OTHERS[pair.suite]
    sibling = _SIBLING[pair.suite]

    def bound(**to: Any) -> bytes:
        return envelope(pair, seal(inside, pair, info(pair, **to), f"{name} bound"))

    found = {
        "under-another-suite": (
            f"The number says suite {sibling}.", envelope(pair, right, sibling), "seal"),
        "sealed-for-another-suite": (f"Suite {sibling}.", bound(suite=sibling), "seal"),
        "sealed-for-another-direction": ("A response.", bound(direction="response"), "seal"),
        "sealed-for-a-binding": ("A digest.", bound(binding=bytes(32)), "seal"),
        "sealed-to-another-key": ("Another pair.", envelope(
            pair, seal(inside, other, info(pair), f"{name} other")), "seal"),
        "sealed-empty": ("Nothing.", envelope(pair, b""), "seal"),
        "tag-bit": ("One bit.", envelope(pair, right[:-1] + bytes([right[-1] ^ 1])), "seal"),
        "ciphertext-cut": ("A byte less.", envelope(pair, right[:-1]), "seal"),
        "ciphertext-long": ("A byte more.", envelope(pair, right + b"\0"), "seal"),
    }  # fmt: skip
    more = _wrong_rsa(name, pair) if isinstance(pair, RsaPair) else _wrong_ec(pair, right)
    return found | {text: (says, envelope(pair, data), "seal") for text, (says, data) in more}


def _wrong_ec(pair: Pair, right: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    length = 1 + 2 * pair.curve.size
    return [
        ("enc-short", ("96 bytes.", right[: length - 1])),
        ("enc-off-curve", ("No point.", b"\x04" + bytes(95) + b"\x01" + right[length:])),
        ("enc-of-another-curve", ("A point on P-256.", _P256.point + right[length:])),
        ("enc-another", ("Another point.", pair.point + right[length:])),
        ("ciphertext-none", ("No ciphertext.", right[:length])),
    ]


def _wrong_rsa(name: str, pair: RsaPair) -> list[tuple[str, tuple[str, bytes]]]:
    """Return seals with one fault in the encrypted key, or in how it is used."""
    inside, bound_to = signed_by(pair, info(pair)), info(pair)
    name = f"{name} request"
    key = derived(f"{name} content key", 32)
    right = pair.seal(inside, bound_to, name)
    rest = right[pair.length :]
    other_hash = "sha1" if pair.suite == 2 else "sha256"

    def under(content_key: bytes, **changes: str | bytes) -> bytes:
        return pair.encrypted_key(content_key, name, **changes) + rest

    return [
        ("encrypted-key-is-the-modulus", ("n.", pair.modulus.to_bytes(pair.length, "big") + rest)),
        ("encrypted-key-all-ones", ("2^2048 - 1.", b"\xff" * pair.length + rest)),
        ("encrypted-key-above-the-modulus", ("c + n.", _sealed_above(pair, inside, name))),
        ("encrypted-key-zero", ("0.", bytes(pair.length) + rest)),
        ("encrypted-key-one", ("1.", bytes(pair.length - 1) + b"\x01" + rest)),
        ("encrypted-key-bit", ("One bit.", bytes([right[0] ^ 1]) + right[1:])),
        ("encrypted-key-short", ("255 bytes, and what follows.", right[1:])),
        ("encrypted-key-alone", ("No ciphertext.", right[: pair.length])),
        ("oaep-other-hash", (f"OAEP with {other_hash}.", under(key, hash_=other_hash))),
        ("oaep-other-mask", (f"MGF1 with {other_hash}.", under(key, mgf=other_hash))),
        ("oaep-label", ("A label.", under(key, label=b"carnet"))),
        ("pkcs1-padding", ("PKCS #1 v1.5.", pair.encrypt(_pkcs1(key, pair.length)) + rest)),
        ("unpadded", ("No padding.", pair.encrypt(key.rjust(pair.length, b"\0")) + rest)),
        ("content-key-of-another", ("Another key.", under(derived("another", 32)))),
        ("content-key-empty", ("No key.", under(b""))),
        ("content-key-short", ("31 bytes.", under(key[:-1]))),
        ("content-key-long", ("33 bytes.", under(key + b"\0"))),
        ("not-bound", ("No associated data.", pair.seal(inside, b"", name))),
    ]


def _sealed_above(pair: RsaPair, inside: bytes, name: str) -> bytes:
    """Return a right seal, but for the modulus added to the encrypted key."""
    for attempt in count():
        sealed = pair.seal(inside, info(pair), f"{name} {attempt}")
        above = pair.plus_modulus(sealed[: pair.length])
        if above:
            return above + sealed[pair.length :]
    raise AssertionError


def _signed_above(pair: RsaPair, structure: bytes) -> bytes:
    """Return a right signature, but for the modulus added."""
    for draw in count():
        above = pair.plus_modulus(pair.sign(structure, draw=draw))
        if above:
            return above
    raise AssertionError


def _pkcs1(message: bytes, length: int) -> bytes:
    """Return EME-PKCS1-v1_5 (RFC 8017 section 7.2.1), its filling constant."""
    return b"\x00\x02" + b"\x5a" * (length - len(message) - 3) + b"\x00" + message


def _wrong_inside(pair: AnyPair) -> dict[str, tuple[str, bytes, str]]:
    """Return what is wrong with the signed message inside a right seal."""
    parts = sign1(_PAYLOAD, info(pair), pair)
    signature, other = parts[3], OTHERS[pair.suite]

    def with_signature(data: bytes) -> bytes:
        return encode([*parts[:3], data])

    found = {
        "signed-by-a-stranger": ("Another key.", signed_by(other, info(pair)), "signature"),
        "signed-for-another-suite": (
            f"Suite {_SIBLING[pair.suite]}.",
            signed_by(pair, info(pair, suite=_SIBLING[pair.suite])),
            "signature",
        ),
        "signed-for-another-direction": (
            "A response.", signed_by(pair, info(pair, "response")), "signature"),
        "signature-bit": (
            "One bit.", with_signature(bytes([signature[0] ^ 1]) + signature[1:]), "signature"),
        "signature-short": ("A byte less.", with_signature(signature[:-1]), "signature"),
        "signature-long": ("A byte more.", with_signature(signature + b"\0"), "signature"),
        "signature-zero": ("Zeros.", with_signature(bytes(len(signature))), "signature"),
        "signature-of-suite-1": ("64 bytes.", with_signature(bytes(64)), "signature"),
        "algorithm-es256": (
            "ES256.", encode(sign1(_PAYLOAD, info(pair), pair, -7)), "suite"),
        "algorithm-missing": ("None.", encode([b"", *parts[1:]]), "suite"),
    }  # fmt: skip
    return found | (_wrong_pss(pair, parts) if isinstance(pair, RsaPair) else _wrong_ecdsa(parts))


def _wrong_ecdsa(parts: list[Any]) -> dict[str, tuple[str, bytes, str]]:
    swapped = parts[3][48:] + parts[3][:48]
    padded = b"\0" + parts[3][:48] + b"\0" + parts[3][48:]
    too_large = P384.order.to_bytes(48, "big") + parts[3][48:]
    return {
        "signature-swapped": ("s ‖ r.", encode([*parts[:3], swapped]), "signature"),
        "signature-padded": (
            "A zero before r, and one before s.", encode([*parts[:3], padded]), "signature"),
        "signature-r-too-large": ("The order.", encode([*parts[:3], too_large]), "signature"),
    }  # fmt: skip


def _wrong_pss(pair: RsaPair, parts: list[Any]) -> dict[str, tuple[str, bytes, str]]:
    structure = encode(["Signature1", parts[0], info(pair), _PAYLOAD])
    digest = hashlib.sha256(structure).digest()
    prefix = bytes.fromhex("3031300d060960864801650304020105000420")
    filling = b"\xff" * (pair.length - len(prefix) - len(digest) - 3)
    pkcs1 = pair.decrypt(b"\x00\x01" + filling + b"\x00" + prefix + digest)
    ps384, es384 = (encode(sign1(_PAYLOAD, info(pair), pair, number)) for number in (-38, -35))
    wrong = {
        "pss-no-salt": ("A salt of no bytes.", pair.sign(structure, salt=0)),
        "pss-salt-short": ("A salt of 20 bytes.", pair.sign(structure, salt=20)),
        "pss-salt-long": ("A salt of 33 bytes.", pair.sign(structure, salt=33)),
        "pss-other-mask": ("MGF1 with SHA-1.", pair.sign(structure, mgf="sha1")),
        "signature-pkcs1": ("PKCS #1 v1.5.", pkcs1),
        "signature-above-the-modulus": ("s + n.", _signed_above(pair, structure)),
        "signature-all-ones": ("2^2048 - 1.", b"\xff" * pair.length),
    }  # fmt: skip
    return {
        "algorithm-ps384": ("PS384.", ps384, "suite"),
        "algorithm-es384": ("ES384.", es384, "suite"),
        **{
            text: (says, encode([*parts[:3], data]), "signature")
            for text, (says, data) in wrong.items()
        },
    }


def _bad_responses(name: str, pair: AnyPair) -> list[Case]:
    right = _answer(name, pair, encode(grant()))
    sibling = _SIBLING[pair.suite]
    bound_to = info(pair, "response", right["request_digest"])
    stranger = signed_by(OTHERS[pair.suite], bound_to, encode(grant()))
    forged = envelope(pair, seal(stranger, pair, bound_to, f"{name} forged"))
    moved = _answer(name, pair, encode(grant()), sibling)
    under = "seal" if sibling == 1 else "binding"
    return [
        bad(f"{name}-response-under-another-suite", f"Suite {sibling}.", "open response",
            moved, under),
        bad(f"{name}-response-to-another-request", "The answer to another request.",
            "open response", right | {"request_digest": bytes(32)}, "seal"),
        bad(f"{name}-response-is-the-request", "The request, sent back.", "open response",
            right | {"message": sealed_request(name, pair)}, "seal"),
        bad(f"{name}-response-signed-by-a-stranger", "Sealed rightly.", "open response",
            right | {"message": forged}, "signature"),
    ]  # fmt: skip


def _bad_keys(name: str, pair: AnyPair) -> list[Case]:
    """Return evidence beside public keys that are none of the suite."""
    evidence = {"suite": pair.suite, "evidence": signed_by(pair, info(pair))}
    wrong: dict[str, bytes] = {"of-suite-1": _P256.spki, "cut": pair.spki[:-1]}
    if isinstance(pair, RsaPair):
        wrong |= {
            "of-an-ec-suite": PAIRS["suite-3"].spki,
            "exponent-three": _rsa_key(3, pair.modulus),
            "of-1024-bits": _rsa_key(65537, _odd(1024)),
            "of-2056-bits": _rsa_key(65537, _odd(2056)),
            "of-2047-bits": _rsa_key(65537, _odd(2047)),
            "named-for-pss": _named_for_pss(pair.spki),
        }
    else:
        wrong |= {"of-an-rsa-suite": PAIRS["suite-2"].spki, "compressed": _compressed(pair)}
    return [
        bad(f"{name}-evidence-key-{text}", "Not the key of a pair of this suite.",
            "verify evidence", {"public_key": key} | evidence, "field")
        for text, key in wrong.items()
    ]  # fmt: skip


def _odd(bits: int) -> int:
    drawn = int.from_bytes(derived(f"modulus of {bits}", 512), "big") % (1 << bits)
    return drawn | 1 << (bits - 1) | 1


def _rsa_key(exponent: int, modulus: int) -> bytes:
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _named_for_pss(spki: bytes) -> bytes:
    """Return the key under id-RSASSA-PSS (RFC 4055), another encoding of the same numbers."""
    return spki.replace(bytes.fromhex("2a864886f70d010101"), bytes.fromhex("2a864886f70d01010a"))


def _compressed(pair: Pair) -> bytes:
    """Return the key with its point compressed, another encoding of the same point."""
    key = pair.private.public_key()
    point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    head = bytes.fromhex("3046301006072a8648ce3d020106052b81040022033200")
    return head + point
