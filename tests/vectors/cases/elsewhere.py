"""What is right on the wire and refused behind it: unknown keys, and Target's policy."""

from typing import Any

from tests.vectors.case import Case, bad
from tests.vectors.cases.requests import PAIR, inputs, seal_request
from tests.vectors.encoding import encode
from tests.vectors.protocol import Pair
from tests.vectors.values import changed, driver, request

_MEMBER: dict[str, Any] = {
    "user_id": "alice@office",
    "entries": [{"objective": 3, "network": "10.20.0.0/16", "lifetime": 3600}],
}
_INFO = "request_info"

POLICY: dict[str, tuple[str, Any]] = {
    "unknown-target": (f"{_INFO}.target", "home"),
    "objective-not-allowed": ("objective_id", 2),
    "network-not-allowed": (f"{_INFO}.networks", ["10.21.0.0/16"]),
    "lifetime-not-allowed": (f"{_INFO}.lifetime", 3601),
    "cannot-carry": (f"{_INFO}.drivers", [driver() | {"ike_versions": [1]}]),
}


def cases() -> list[Case]:
    """Return the requests that open and are refused all the same."""
    return [
        _unknown("unknown-key", [Pair("known").spki]),
        _unknown("unknown-key-no-keys", []),
        _refused("unknown-user", request(), None),
        *(
            _refused(code, changed(request(), path, new), _MEMBER)
            for code, (path, new) in POLICY.items()
        ),
    ]


def _unknown(name: str, keys: list[bytes]) -> Case:
    message = seal_request(f"request-{name}", encode(request()))
    text = "The Key Database has no pair of that key_id."
    given = {"known_keys": keys, "message": message}
    return bad(f"request-{name}", text, "look up", given, "unknown key")


def _refused(code: str, value: dict[str, Any], member: dict[str, Any] | None) -> Case:
    message = seal_request(f"policy-{code}", encode(value))
    given = inputs(message, PAIR) | {"target": "work", "member": member}
    expect = {"fault": "policy", "code": code}
    text = "Target's access control list says no."
    return Case(f"bad/policy-{code}", text, "authorize", given, expect)
