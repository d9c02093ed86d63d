"""Requests: every field set, null, empty and at its edges; and each out of its bounds."""

from typing import Any

from tests.vectors.case import Case, bad, good
from tests.vectors.encoding import encode
from tests.vectors.protocol import Pair, info_of, seal, sign1
from tests.vectors.values import changed, driver, request, without

PAIR = Pair("alice's pair")
_INFO = "request_info"
_DRIVER = driver()
_NETWORKS = [f"10.{number}.0.0/16" for number in range(32)]
_DRIVERS = [_DRIVER | {"name": f"driver-{number}"} for number in range(8)]

GOOD: dict[str, tuple[str, Any]] = {
    "user-one-letter": ("user_id", "a@b"),
    "user-longest": ("user_id", "a" * 63 + "@" + "b" * 63),
    "user-punctuation": ("user_id", "a.b_c-d@h-1.example"),
    "objective-native": ("objective_id", 1),
    "objective-ah": ("objective_id", 2),
    "objective-ah-esp": ("objective_id", 4),
    "request-id-zeros": ("request_id", bytes(16)),
    "target-longest": (f"{_INFO}.target", "w" * 63),
    "networks-null": (f"{_INFO}.networks", None),
    "networks-none": (f"{_INFO}.networks", []),
    "networks-ipv6": (f"{_INFO}.networks", ["2001:db8::/32"]),
    "networks-everything": (f"{_INFO}.networks", ["0.0.0.0/0", "::/0"]),
    "networks-one-address": (f"{_INFO}.networks", ["10.20.0.1/32"]),
    "networks-most": (f"{_INFO}.networks", _NETWORKS),
    "lifetime-null": (f"{_INFO}.lifetime", None),
    "lifetime-shortest": (f"{_INFO}.lifetime", 1),
    "lifetime-longest": (f"{_INFO}.lifetime", 366 * 86400),
    "drivers-most": (f"{_INFO}.drivers", _DRIVERS),
    "driver-carries-nothing": (
        f"{_INFO}.drivers",
        [_DRIVER | {"objectives": [], "modes": [], "ppk": False}],
    ),
    "driver-carries-all": (
        f"{_INFO}.drivers",
        [
            _DRIVER
            | {
                "ike_versions": [1, 2],
                "objectives": [1, 2, 3, 4],
                "modes": ["tunnel", "transport"],
            }
        ],
    ),
    "nat-null": (f"{_INFO}.nat", None),
    "nat-true": (f"{_INFO}.nat", True),
}

BAD: dict[str, tuple[str, Any]] = {
    "request-id-short": ("request_id", bytes(15)),
    "request-id-long": ("request_id", bytes(17)),
    "request-id-text": ("request_id", "0123456789abcdef"),
    "user-without-host": ("user_id", "alice"),
    "user-newline": ("user_id", "alice@office\n"),
    "user-upper-case": ("user_id", "Alice@office"),
    "user-too-long": ("user_id", "a" * 64 + "@office"),
    "user-bytes": ("user_id", b"alice@office"),
    "objective-zero": ("objective_id", 0),
    "objective-five": ("objective_id", 5),
    "objective-true": ("objective_id", True),
    "objective-text": ("objective_id", "3"),
    "objective-null": ("objective_id", None),
    "target-empty": (f"{_INFO}.target", ""),
    "target-path": (f"{_INFO}.target", "../work"),
    "target-too-long": (f"{_INFO}.target", "w" * 64),
    "networks-host-bits": (f"{_INFO}.networks", ["10.20.0.1/16"]),
    "networks-leading-zero": (f"{_INFO}.networks", ["10.20.00.0/16"]),
    "networks-no-prefix": (f"{_INFO}.networks", ["10.20.0.0"]),
    "networks-ipv6-not-canonical": (f"{_INFO}.networks", ["2001:db8:0::/32"]),
    "networks-name": (f"{_INFO}.networks", ["work"]),
    "networks-too-many": (f"{_INFO}.networks", [*_NETWORKS, "10.99.0.0/16"]),
    "lifetime-zero": (f"{_INFO}.lifetime", 0),
    "lifetime-negative": (f"{_INFO}.lifetime", -1),
    "lifetime-too-long": (f"{_INFO}.lifetime", 366 * 86400 + 1),
    "lifetime-beyond-64-bits-signed": (f"{_INFO}.lifetime", 2**64 - 1),
    "drivers-none": (f"{_INFO}.drivers", []),
    "drivers-too-many": (f"{_INFO}.drivers", [*_DRIVERS, _DRIVER]),
    "driver-surplus-field": (f"{_INFO}.drivers", [_DRIVER | {"version": "5"}]),
    "driver-without-ike": (f"{_INFO}.drivers", [_DRIVER | {"ike_versions": []}]),
    "driver-ike-three": (f"{_INFO}.drivers", [_DRIVER | {"ike_versions": [3]}]),
    "driver-mode-unknown": (f"{_INFO}.drivers", [_DRIVER | {"modes": ["beet"]}]),
    "nat-number": (f"{_INFO}.nat", 1),
    "ephemeral-key-short": (f"{_INFO}.ephemeral_key", bytes(1215)),
    "ephemeral-key-long": (f"{_INFO}.ephemeral_key", bytes(1217)),
    "ephemeral-key-null": (f"{_INFO}.ephemeral_key", None),
    "surplus-field": ("surplus", 1),
    "surplus-field-within": (f"{_INFO}.surplus", None),
}

_MISSING = ("request_id", "user_id", "objective_id", _INFO, f"{_INFO}.networks", f"{_INFO}.nat")


def seal_request(name: str, payload: bytes) -> bytes:
    """Return the sealed message over a payload."""
    info = info_of(PAIR.key_id)
    signed = encode(sign1(payload, info, PAIR))
    return encode([1, 1, PAIR.key_id, seal(signed, PAIR, info, name)])


def inputs(message: bytes, pair: Pair = PAIR) -> dict[str, bytes]:
    """Return what Host has when a sealed request arrives."""
    return {"public_key": pair.spki, "private_key": pair.private_bytes, "message": message}


def cases() -> list[Case]:
    """Return the requests."""
    return [
        _good("defaults", "A request.", request()),
        *(
            _good(name, f"A request in which {path} is at an edge.", changed(request(), path, new))
            for name, (path, new) in GOOD.items()
        ),
        *(
            _bad(name, f"{path} is not what it may be.", changed(request(), path, new))
            for name, (path, new) in BAD.items()
        ),
        *(
            _bad(f"no-{path.split('.')[-1].replace('_', '-')}", f"{path} is missing.",
                 without(request(), path))
            for path in _MISSING
        ),
    ]  # fmt: skip


def _good(name: str, description: str, value: dict[str, Any]) -> Case:
    payload = encode(value)
    message = seal_request(f"request-{name}", payload)
    return good(f"request-{name}", description, "open request", inputs(message), payload=payload)


def _bad(name: str, description: str, value: dict[str, Any]) -> Case:
    message = seal_request(f"request-{name}", encode(value))
    return bad(f"request-{name}", description, "open request", inputs(message), "field")
