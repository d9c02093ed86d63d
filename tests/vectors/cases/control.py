"""What Host and Target say to each other inside TLS."""

from typing import Any

from tests.vectors.case import Case, bad, good
from tests.vectors.cases.requests import PAIR
from tests.vectors.encoding import encode
from tests.vectors.protocol import info_of, sign1
from tests.vectors.values import (
    changed,
    request,
    tunnel_ended,
    tunnel_grant,
    tunnel_refusal,
    without,
)

_STATEMENT: dict[str, Any] = {
    "version": 1,
    "user_id": "alice@office",
    "custody": "paired",
    "suite": 1,
    "public_key": PAIR.spki,
    "evidence": encode(sign1(encode(request()), info_of(PAIR.key_id), PAIR)),
}
_ENDED = [tunnel_ended() | {"number": number} for number in range(1, 65)]

GOOD: dict[str, tuple[str, Any]] = {
    "tunnel-request-defaults": ("tunnel request", _STATEMENT),
    "tunnel-request-split": ("tunnel request", _STATEMENT | {"custody": "split"}),
    "tunnel-request-evidence-largest": ("tunnel request", _STATEMENT | {"evidence": bytes(8192)}),
    "tunnel-grant": ("tunnel answer", tunnel_grant()),
    "tunnel-refusal": ("tunnel answer", tunnel_refusal()),
    "tunnel-refusal-unknown-user": ("tunnel answer", tunnel_refusal("unknown-user")),
    "ended-none": ("ended tunnels", {"tunnels": []}),
    "ended-one": ("ended tunnels", {"tunnels": _ENDED[:1]}),
    "ended-most": ("ended tunnels", {"tunnels": _ENDED}),
}

BAD: dict[str, tuple[str, Any]] = {
    "tunnel-request-version-two": ("tunnel request", _STATEMENT | {"version": 2}),
    "tunnel-request-custody-unknown": ("tunnel request", _STATEMENT | {"custody": "lost"}),
    "tunnel-request-suite-text": ("tunnel request", _STATEMENT | {"suite": "1"}),
    "tunnel-request-evidence-too-large": (
        "tunnel request",
        _STATEMENT | {"evidence": bytes(8193)},
    ),
    "tunnel-request-no-evidence": ("tunnel request", without(_STATEMENT, "evidence")),
    "tunnel-request-surplus-field": ("tunnel request", _STATEMENT | {"admin": True}),
    "tunnel-grant-session-key-short": (
        "tunnel answer",
        tunnel_grant() | {"session_key": bytes(32)},
    ),
    "tunnel-grant-invalid-pairs": ("tunnel answer", tunnel_grant() | {"invalid_pairs": []}),
    "tunnel-grant-network-host-bits": (
        "tunnel answer",
        changed(tunnel_grant(), "tunneling_info.networks", ["10.20.0.1/16"]),
    ),
    "tunnel-refusal-code-unknown": ("tunnel answer", tunnel_refusal("because")),
    "tunnel-answer-no-outcome": ("tunnel answer", without(tunnel_refusal(), "outcome")),
    "ended-number-zero": ("ended tunnels", {"tunnels": [tunnel_ended() | {"number": 0}]}),
    "ended-reason-sentence": (
        "ended tunnels",
        {"tunnels": [tunnel_ended() | {"reason": "it ended"}]},
    ),
    "ended-too-many": ("ended tunnels", {"tunnels": [*_ENDED, tunnel_ended()]}),
}

MALFORMED: dict[str, tuple[str, bytes, str]] = {
    "tunnel-request-trailing-byte": (
        "tunnel request",
        encode(_STATEMENT) + b"\0",
        "canonical form",
    ),
    "tunnel-request-truncated": ("tunnel request", encode(_STATEMENT)[:-1], "framing"),
    "tunnel-answer-trailing-byte": (
        "tunnel answer",
        encode(tunnel_refusal()) + b"\0",
        "canonical form",
    ),
    "tunnel-answer-truncated": ("tunnel answer", encode(tunnel_grant())[:-1], "framing"),
    "tunnel-answer-too-large": ("tunnel answer", encode(bytes(32 * 1024)), "framing"),
    "ended-indefinite": ("ended tunnels", b"\xbf\x67tunnels\x80\xff", "canonical form"),
}


def cases() -> list[Case]:
    """Return the control messages."""
    return [
        *(
            good(
                name,
                f"A {kind}.",
                f"read {kind}",
                {"message": encode(value)},
                payload=encode(value),
            )
            for name, (kind, value) in GOOD.items()
        ),
        *(
            bad(name, f"Not a {kind}.", f"read {kind}", {"message": encode(value)}, "field")
            for name, (kind, value) in BAD.items()
        ),
        *(
            bad(name, f"Not a {kind}.", f"read {kind}", {"message": data}, fault)
            for name, (kind, data, fault) in MALFORMED.items()
        ),
    ]
