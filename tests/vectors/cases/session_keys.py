"""The session key that Target seals to the Client, and what both derive from it."""

from typing import Any

from tests.vectors.case import Case, bad, good
from tests.vectors.encoding import encode
from tests.vectors.protocol import (
    EPHEMERAL_SECRET,
    derive_secret,
    derived,
    seal_session_key,
)
from tests.vectors.values import REQUEST_ID

_SESSION_KEY = derived("session key", 32)
_BINDING: dict[str, Any] = {
    "request_id": REQUEST_ID,
    "user_id": "alice@office",
    "target": "work",
    "objective_id": 3,
}
_OTHERS: dict[str, Any] = {
    "request_id": bytes(16),
    "user_id": "mallory@office",
    "target": "home",
    "objective_id": 1,
}


def _seal(binding: dict[str, Any]) -> bytes:
    return seal_session_key(_SESSION_KEY, encode(["carnet", 1, "session-key", *binding.values()]))


def cases() -> list[Case]:
    """Return the session keys."""
    sealed = _seal(_BINDING)
    given = {"ephemeral_secret": EPHEMERAL_SECRET, "sealed": sealed, "binding": _BINDING}
    wrong = {
        "lattice-bit": bytes([sealed[0] ^ 1]) + sealed[1:],
        "x25519-bit": sealed[:1088] + bytes([sealed[1088] ^ 1]) + sealed[1089:],
        "tag-bit": sealed[:-1] + bytes([sealed[-1] ^ 1]),
        "short": sealed[:-1],
        "empty": b"",
    }
    return [
        *(_good(objective) for objective in (1, 2, 3, 4)),
        *(
            _bad(
                f"for-another-{name.replace('_', '-')}", given | {"binding": _BINDING | {name: new}}
            )
            for name, new in _OTHERS.items()
        ),
        *(_bad(name, given | {"sealed": data}) for name, data in wrong.items()),
        _bad("another-ephemeral-key", given | {"ephemeral_secret": derived("another", 96)}),
    ]


def _good(objective: int) -> Case:
    binding = _BINDING | {"objective_id": objective}
    return good(
        f"session-key-objective-{objective}",
        "What Target sealed opens, and all secrets follow from it.",
        "open session key",
        {"ephemeral_secret": EPHEMERAL_SECRET, "sealed": _seal(binding), "binding": binding},
        psk=derive_secret(_SESSION_KEY, "ike-psk", REQUEST_ID),
        ppk=derive_secret(_SESSION_KEY, "ppk", REQUEST_ID),
        ah_psk=derive_secret(_SESSION_KEY, "ike-psk-ah", REQUEST_ID),
        ah_ppk=derive_secret(_SESSION_KEY, "ppk-ah", REQUEST_ID),
    )


def _bad(name: str, given: dict[str, Any]) -> Case:
    text = "The session key does not open."
    return bad(f"session-key-{name}", text, "open session key", given, "seal")
