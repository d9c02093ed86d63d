"""Responses: grants and each refusal, and what is bound to the request they answer."""

import hashlib
from typing import Any

from tests.vectors.case import Case, bad, good
from tests.vectors.cases.requests import PAIR, seal_request
from tests.vectors.encoding import encode
from tests.vectors.protocol import Pair, derived, info_of, seal, sign1
from tests.vectors.values import changed, grant, refusal, request, without

REQUEST = seal_request("request-defaults", encode(request()))
DIGEST = hashlib.sha256(REQUEST).digest()
_TI = "tunneling_info"
_CODES = (
    "unknown-target",
    "wrong-user",
    "unknown-user",
    "objective-not-allowed",
    "network-not-allowed",
    "lifetime-not-allowed",
    "cannot-carry",
    "evidence-not-accepted",
    "no-address-left",
    "too-late",
)
_PAIRS = [derived(f"invalid pair {number}", 16) for number in range(2048)]
_NETWORKS = [f"10.{number}.0.0/16" for number in range(32)]

GOOD: dict[str, tuple[str, Any]] = {
    "addresses-most": (f"{_TI}.target_addresses", [f"198.51.100.{n}" for n in range(8)]),
    "address-ipv6": (f"{_TI}.target_addresses", ["2001:db8::1"]),
    "identity-longest": (f"{_TI}.client_identity", "c" * 64),
    "objective-ah": (f"{_TI}.objective_id", 2),
    "mode-transport": (f"{_TI}.mode", "transport"),
    "ike-one": (f"{_TI}.ike_version", 1),
    "esp-none": (f"{_TI}.esp_proposals", []),
    "ah-proposal": (f"{_TI}.ah_proposals", ["sha256-modp2048"]),
    "ppk-null": (f"{_TI}.ppk_id", None),
    "networks-none": (f"{_TI}.networks", []),
    "networks-most": (f"{_TI}.networks", _NETWORKS),
    "virtual-address-null": (f"{_TI}.virtual_address", None),
    "dns-none": (f"{_TI}.dns", []),
    "mtu-null": (f"{_TI}.mtu", None),
    "mtu-least": (f"{_TI}.mtu", 576),
    "mtu-most": (f"{_TI}.mtu", 65535),
    "force-udp": (f"{_TI}.force_udp", True),
    "expires-latest": (f"{_TI}.expires", 2**40),
    "invalid-pairs-one": ("invalid_pairs", _PAIRS[:1]),
}

BAD_GRANT: dict[str, tuple[str, Any]] = {
    "outcome-unknown": ("outcome", "perhaps"),
    "session-key-short": ("session_key", bytes(1167)),
    "session-key-long": ("session_key", bytes(1169)),
    "addresses-none": (f"{_TI}.target_addresses", []),
    "address-name": (f"{_TI}.target_addresses", ["target.example"]),
    "identity-space": (f"{_TI}.client_identity", "client 00"),
    "identity-wildcard": (f"{_TI}.target_identity", "*"),
    "mode-unknown": (f"{_TI}.mode", "beet"),
    "ike-zero": (f"{_TI}.ike_version", 0),
    "ike-proposals-none": (f"{_TI}.ike_proposals", []),
    "virtual-address-not-canonical": (f"{_TI}.virtual_address", "2001:DB8::1"),
    "mtu-small": (f"{_TI}.mtu", 575),
    "mtu-large": (f"{_TI}.mtu", 65536),
    "expires-negative": (f"{_TI}.expires", -1),
    "expires-late": (f"{_TI}.expires", 2**40 + 1),
    "invalid-pair-short": ("invalid_pairs", [bytes(15)]),
    "refusal-code-beside": ("code", "too-late"),
}

BAD_REFUSAL: dict[str, tuple[str, Any]] = {
    "code-unknown": ("code", "because"),
    "reason-escape": ("reason", "\x1b[2JGone."),
    "reason-too-long": ("reason", "a" * 401),
    "invalid-pairs-null": ("invalid_pairs", None),
}


def seal_response(name: str, payload: bytes) -> bytes:
    """Return the sealed answer to REQUEST over a payload."""
    info = info_of(PAIR.key_id, "response", DIGEST)
    signed = encode(sign1(payload, info, PAIR))
    return encode([1, 1, PAIR.key_id, seal(signed, PAIR, info, name)])


def inputs(message: bytes, digest: bytes = DIGEST, pair: Pair = PAIR) -> dict[str, bytes]:
    """Return what the Client has when a sealed response arrives."""
    return {
        "public_key": pair.spki,
        "private_key": pair.private_bytes,
        "request_digest": digest,
        "message": message,
    }


def cases() -> list[Case]:
    """Return the responses."""
    return [
        _good("grant-defaults", "A grant.", grant()),
        *(
            _good(f"grant-{name}", f"A grant, {path} at an edge.", changed(grant(), path, new))
            for name, (path, new) in GOOD.items()
        ),
        *(_good(f"refusal-{code}", "A refusal.", refusal(code)) for code in _CODES),
        _good("refusal-reason-empty", "A reason may be empty.", refusal() | {"reason": ""}),
        _good("refusal-reason-longest", "400 characters.", refusal() | {"reason": "\u00e9" * 400}),
        _good(
            "refusal-invalid-pairs-most",
            "As many invalid pairs as fit.",
            refusal() | {"invalid_pairs": _PAIRS},
        ),
        _bad(
            "refusal-invalid-pairs-too-many",
            "One pair too many.",
            refusal() | {"invalid_pairs": [*_PAIRS, bytes(16)]},
        ),
        *_bad_ones(),
    ]


def _bad_ones() -> list[Case]:
    return [
        *(
            _bad(f"grant-{name}", f"{path} may not be so.", changed(grant(), path, new))
            for name, (path, new) in BAD_GRANT.items()
        ),
        *(
            _bad(f"refusal-{name}", f"{path} may not be so.", changed(refusal(), path, new))
            for name, (path, new) in BAD_REFUSAL.items()
        ),
        _bad("grant-no-outcome", "Neither yes nor no.", without(grant(), "outcome")),
        _bad("grant-no-session-key", "No session key.", without(grant(), "session_key")),
        _bad("grant-no-mtu", "A null left out.", without(grant(), f"{_TI}.mtu")),
        _bad("refusal-no-reason", "No reason.", without(refusal(), "reason")),
    ]


def _good(name: str, description: str, value: dict[str, Any]) -> Case:
    payload = encode(value)
    message = seal_response(f"response-{name}", payload)
    return good(f"response-{name}", description, "open response", inputs(message), payload=payload)


def _bad(name: str, description: str, value: dict[str, Any]) -> Case:
    message = seal_response(f"response-{name}", encode(value))
    return bad(f"response-{name}", description, "open response", inputs(message), "field")
