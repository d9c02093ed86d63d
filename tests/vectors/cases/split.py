"""Custody `split`: sealed to the Host's long-term key, answered to the ephemeral one.

Bad are the Host's key swapped, one custody taken for the other, and the direction turned.
"""

import hashlib
from typing import Any

from tests.vectors.case import Case, bad, good
from tests.vectors.encoding import encode
from tests.vectors.protocol import (
    EPHEMERAL_SECRET,
    P256,
    P384,
    AnyPair,
    Pair,
    derived,
    info_of,
    seal,
    seal_session_key,
    sign1,
)
from tests.vectors.rsa import RsaPair
from tests.vectors.values import batch, batch_pair, cover, grant, refusal, request

PAIRS: dict[str, AnyPair] = {
    "suite-1": Pair("alice's pair"),
    "suite-2": RsaPair("rsa-2048", 2),
    "suite-3": Pair("alice's pair", P384),
}
_PAYLOAD = encode(request())
_OFFICER = Pair("officer")
_SUITE_4 = RsaPair("rsa-2048", 4)


def sealing(pair: AnyPair) -> Pair:
    """Return the Host's key that a pair's requests are sealed to."""
    return Pair("the host's sealing key", P384 if pair.suite == 3 else P256)


def signing(pair: AnyPair) -> Pair:
    """Return the Host's key that the answers to a pair are signed by."""
    return Pair("the host's signing key", P384 if pair.suite == 3 else P256)


def host_keys() -> list[bytes]:
    """Return the Host's keys as a cover lists them."""
    return [key(PAIRS[name]).spki for name in ("suite-1", "suite-3") for key in (sealing, signing)]


def info(
    pair: AnyPair, direction: str = "request", binding: bytes = b"", custody: str = "split"
) -> bytes:
    """Return what a message of a pair is bound to."""
    return info_of(pair.key_id, direction, binding, pair.suite, custody)


def evidence(pair: AnyPair) -> bytes:
    """Return a signed request."""
    return encode(sign1(_PAYLOAD, info(pair), pair))


def request_of(
    pair: AnyPair,
    *,
    signed: bytes | None = None,
    to: AnyPair | None = None,
    bound: bytes | None = None,
) -> bytes:
    """Return a sealed request; right where nothing else is said."""
    inside = evidence(pair) if signed is None else signed
    bound_to = info(pair) if bound is None else bound
    name = f"split suite {pair.suite} request"
    return encode([1, pair.suite, pair.key_id, seal(inside, to or sealing(pair), bound_to, name)])


def response_of(
    pair: AnyPair,
    payload: bytes,
    *,
    signer: AnyPair | None = None,
    bound: bytes | None = None,
    signed_for: bytes | None = None,
) -> bytes:
    """Return a sealed response; right where nothing else is said."""
    right = info(pair, "response", _digest(pair))
    signed = encode(sign1(payload, signed_for or right, signer or signing(pair)))
    sealed = seal_session_key(signed, bound or right)
    return encode([1, pair.suite, pair.key_id, sealed])


def cases() -> list[Case]:
    """Return the messages and documents of custody `split`."""
    found = [case for name, pair in PAIRS.items() for case in _good(name, pair)]
    found += [case for name, pair in PAIRS.items() for case in _bad_requests(name, pair)]
    found += [case for name, pair in PAIRS.items() for case in _bad_responses(name, pair)]
    return [*found, _of_no_suite()]


def _digest(pair: AnyPair) -> bytes:
    return hashlib.sha256(request_of(pair)).digest()


def _request_inputs(pair: AnyPair, message: bytes, host: Pair | None = None) -> dict[str, Any]:
    host = host or sealing(pair)
    return {
        "public_key": pair.spki,
        "host_key": host.spki,
        "host_private_key": host.private_bytes,
        "message": message,
    }


def _response_inputs(pair: AnyPair, message: bytes) -> dict[str, Any]:
    return {
        "public_key": pair.spki,
        "suite": pair.suite,
        "host_key": signing(pair).spki,
        "ephemeral_secret": EPHEMERAL_SECRET,
        "request_digest": _digest(pair),
        "message": message,
    }


def _good(name: str, pair: AnyPair) -> list[Case]:
    granted, refused = encode(grant()), encode(refusal())
    pairs = [batch_pair() | {"public_key": pair.spki, "wrapped": None}]
    minted = encode(batch() | {
        "custody": "split", "suite": pair.suite, "host_transport_key": sealing(pair).spki,
        "ephemeral_key": None, "pairs": pairs,
    })  # fmt: skip
    covered = encode(cover() | {"custody": "split", "suite": pair.suite, "host_keys": host_keys()})
    return [
        good(f"split-{name}-request", "A request.", "open split request",
             _request_inputs(pair, request_of(pair)), payload=_PAYLOAD),
        good(f"split-{name}-response-grant", "A grant.", "open split response",
             _response_inputs(pair, response_of(pair, granted)), payload=granted),
        good(f"split-{name}-response-refusal", "A refusal.", "open split response",
             _response_inputs(pair, response_of(pair, refused)), payload=refused),
        good(f"split-{name}-evidence", "What Host passes on.", "verify evidence",
             _evidence_inputs(pair, evidence(pair)), payload=_PAYLOAD),
        good(f"split-{name}-batch", "A batch.", "verify batch",
             _document("batch", minted), payload=minted),
        good(f"split-{name}-cover", "A cover.", "verify cover",
             _document("cover", covered), payload=covered),
    ]  # fmt: skip


def _evidence_inputs(pair: AnyPair, signed: bytes, custody: str = "split") -> dict[str, Any]:
    return {
        "public_key": pair.spki,
        "suite": pair.suite,
        "custody": custody,
        "evidence": signed,
    }


def _document(kind: str, payload: bytes) -> dict[str, bytes]:
    signed = encode(sign1(payload, encode(["carnet", 1, kind]), _OFFICER))
    return {"officer_key": _OFFICER.spki, "signed": signed}


def _bad_requests(name: str, pair: AnyPair) -> list[Case]:
    another = Pair("another host's sealing key", sealing(pair).curve)
    as_paired = info(pair, custody="")
    turned = info(pair, "response")
    stranger = Pair("a stranger's pair", pair.curve) if isinstance(pair, Pair) else RsaPair(
        "rsa-2048-other", 2)  # fmt: skip
    sealed = request_of(pair)
    wrong = {
        "host-key-swapped": ("Sealed to another Host.", request_of(pair, to=another), "seal"),
        "host-signing-key": ("Sealed to the key that signs.",
                             request_of(pair, to=signing(pair)), "seal"),
        "sealed-as-paired": ("Bound as in custody paired.",
                             request_of(pair, bound=as_paired), "seal"),
        "signed-as-paired": ("Signed as in custody paired.",
                             request_of(pair, signed=encode(sign1(_PAYLOAD, as_paired, pair))),
                             "signature"),
        "sealed-for-another-direction": ("A response.", request_of(pair, bound=turned), "seal"),
        "signed-for-another-direction": ("A response.",
                                         request_of(pair, signed=encode(
                                             sign1(_PAYLOAD, turned, pair))), "signature"),
        "signed-by-a-stranger": ("Another pair.",
                                 request_of(pair, signed=encode(
                                     sign1(_PAYLOAD, info(pair), stranger))), "signature"),
        "is-its-response": ("The answer, sent to Host.",
                            response_of(pair, encode(refusal())), "seal"),
        "tag-bit": ("One bit.", sealed[:-1] + bytes([sealed[-1] ^ 1]), "seal"),
    }  # fmt: skip
    if isinstance(pair, Pair):
        wrong["sealed-to-the-pair"] = (
            "Sealed to the pair itself, as in custody paired.",
            request_of(pair, to=pair, bound=as_paired),
            "seal",
        )
    if name == "suite-2":
        # Between its length and its tag there is no point of the Host's curve.
        wrong["enc-off-curve"] = ("No point.", encode([1, 2, pair.key_id, bytes(2000)]), "seal")
    found = [
        bad(f"split-{name}-{text}", description, "open split request",
            _request_inputs(pair, message), fault)
        for text, (description, message, fault) in wrong.items()
    ]  # fmt: skip
    crossed = _evidence_inputs(pair, evidence(pair), "paired")
    uncrossed = _evidence_inputs(pair, encode(sign1(_PAYLOAD, as_paired, pair)))
    return [
        *found,
        bad(f"split-{name}-evidence-taken-for-paired", "Signed for the other custody.",
            "verify evidence", crossed, "signature"),
        bad(f"split-{name}-evidence-of-paired", "Signed for the other custody.",
            "verify evidence", uncrossed, "signature"),
    ]  # fmt: skip


def _bad_responses(name: str, pair: AnyPair) -> list[Case]:
    payload = encode(refusal())
    right = info(pair, "response", _digest(pair))
    other_request = info(pair, "response", derived("another request's digest", 32))
    as_paired = info(pair, "response", _digest(pair), custody="")
    another = Pair("another host's signing key", signing(pair).curve)
    answer = response_of(pair, payload)
    wrong = {
        "signing-key-swapped": ("Signed by another Host.",
                                response_of(pair, payload, signer=another), "signature"),
        "signed-by-the-sealing-key": ("The key that opens.",
                                      response_of(pair, payload, signer=sealing(pair)),
                                      "signature"),
        "to-another-request": ("Another digest.",
                               response_of(pair, payload, bound=other_request), "seal"),
        "signed-to-another-request": ("Another digest.",
                                      response_of(pair, payload, signed_for=other_request),
                                      "signature"),
        "sealed-as-paired": ("Bound as in custody paired.",
                             response_of(pair, payload, bound=as_paired), "seal"),
        "signed-as-paired": ("Signed as in custody paired.",
                             response_of(pair, payload, signed_for=as_paired), "signature"),
        "sealed-to-the-pair": ("As in custody paired.", encode(
            [1, pair.suite, pair.key_id, seal(encode(sign1(payload, right, pair)), pair, right,
                                              f"split {name} answer")]), "seal"),
        "is-the-request": ("The request, sent back.", request_of(pair), "seal"),
        "under-another-key": ("Another pair's.", encode(
            [1, pair.suite, bytes(16), seal_session_key(b"", right)]), "binding"),
        "short": ("No tag.", encode([1, pair.suite, pair.key_id, bytes(1135)]), "seal"),
        "tag-bit": ("One bit.", answer[:-1] + bytes([answer[-1] ^ 1]), "seal"),
    }  # fmt: skip
    if isinstance(pair, Pair):
        # An RSA pair has another algorithm than the Host's keys, and is no key of their suite.
        wrong["signed-by-the-pair"] = (
            "By the pair, as in custody paired.",
            response_of(pair, payload, signer=pair), "signature")  # fmt: skip
    else:
        wrong["signed-by-the-pair"] = (
            "By the pair, as in custody paired.",
            response_of(pair, payload, signer=pair), "suite")  # fmt: skip
    return [
        bad(f"split-{name}-response-{text}", description, "open split response",
            _response_inputs(pair, message), fault)
        for text, (description, message, fault) in wrong.items()
    ]  # fmt: skip


def _of_no_suite() -> Case:
    message = request_of(_SUITE_4)
    return bad("split-suite-4-request", "There is one RSA suite in custody split, 2.",
               "open split request", _request_inputs(_SUITE_4, message), "suite")  # fmt: skip
