"""What the security officer signs: covers and batches."""

from typing import Any

from tests.vectors.case import Case, bad, good
from tests.vectors.encoding import encode
from tests.vectors.protocol import Pair, sign1
from tests.vectors.values import batch, batch_pair, changed, cover, without

OFFICER = Pair("officer")

GOOD_COVERS: dict[str, tuple[str, Any]] = {
    "no-end": ("not_after", None),
    "split": ("custody", "split"),
    "host-key": ("host_keys", [Pair("host").spki]),
    "hosts-most": ("hosts", [f"http://host-{n}.example/a" for n in range(8)]),
    "host-ipv6": ("hosts", ["https://[2001:db8::1]:4711/"]),
    "targets-most": ("targets", [f"target-{n}" for n in range(32)]),
}
BAD_COVERS: dict[str, tuple[str, Any]] = {
    "version-two": ("version", 2),
    "host-file": ("hosts", ["file:///etc/passwd"]),
    "host-with-user": ("hosts", ["https://alice@host.example/"]),
    "hosts-none": ("hosts", []),
    "targets-none": ("targets", []),
    "targets-too-many": ("targets", ["work"] * 33),
    "custody-unknown": ("custody", "shared"),
    "host-key-short": ("host_keys", [bytes(31)]),
    "serial-newline": ("token_serial", "0123\n"),
    "issued-negative": ("issued_at", -1),
    "surplus-field": ("surplus", None),
}
GOOD_BATCHES: dict[str, tuple[str, Any]] = {
    "not-after": ("not_after", 1_900_000_000),
    "two-pairs": ("pairs", [batch_pair(), batch_pair() | {"public_key": Pair("2").spki}]),
}
BAD_BATCHES: dict[str, tuple[str, Any]] = {
    "pairs-none": ("pairs", []),
    "id-short": ("batch_id", bytes(15)),
    "wrapped-long": ("pairs", [batch_pair() | {"wrapped": bytes(4097)}]),
    "wrapped-text": ("pairs", [batch_pair() | {"wrapped": "a"}]),
    "label-escape": ("pairs", [batch_pair() | {"label": "\x1b[2J"}]),
    "public-key-long": ("pairs", [batch_pair() | {"public_key": bytes(1025)}]),
    "user-without-host": ("user_id", "alice"),
}


def sign(kind: str, payload: bytes, pair: Pair = OFFICER) -> bytes:
    """Return a document as an officer signed it, bound to its kind."""
    return encode(sign1(payload, encode(["carnet", 1, kind]), pair))


def cases() -> list[Case]:
    """Return the documents."""
    split = batch() | {"ephemeral_key": None, "custody": "split"}
    split["pairs"] = [batch_pair() | {"wrapped": None}]
    return [
        _good("cover", "defaults", cover()),
        _good("batch", "defaults", batch()),
        _good("batch", "split", split),
        *_edges("cover", cover(), GOOD_COVERS, BAD_COVERS),
        *_edges("batch", batch(), GOOD_BATCHES, BAD_BATCHES),
        _bad("cover", "no-end-left-out", encode(without(cover(), "not_after"))),
        *_misused(),
    ]


def _edges(kind: str, value: Any, right: Any, wrong: Any) -> list[Case]:
    return [
        *(_good(kind, name, changed(value, *change)) for name, change in right.items()),
        *(_bad(kind, name, encode(changed(value, *change))) for name, change in wrong.items()),
    ]


def _misused() -> list[Case]:
    payload, other = encode(cover()), encode(batch())
    signed = sign("cover", payload)
    wrong = {
        "cover-is-a-batch": ("cover", sign("batch", other), "signature"),
        "batch-is-a-cover": ("batch", signed, "signature"),
        "cover-by-another-officer": ("cover", sign("cover", payload, Pair("mallory")), "signature"),
        "cover-changed": ("cover", signed.replace(b"alice@", b"malic@"), "signature"),
        "cover-trailing-byte": ("cover", signed + b"\0", "canonical form"),
        "cover-truncated": ("cover", signed[:-1], "framing"),
        "cover-payload-trailing-byte": ("cover", sign("cover", payload + b"\0"), "canonical form"),
        "batch-truncated": ("batch", sign("batch", other)[:-1], "framing"),
        "cover-too-large": ("cover", encode(bytes(16 * 1024)), "framing"),
    }
    return [
        bad(name, "Not the officer's word of that kind.", f"verify {kind}", _inputs(data), fault)
        for name, (kind, data, fault) in wrong.items()
    ]


def _good(kind: str, name: str, value: dict[str, Any]) -> Case:
    payload = encode(value)
    given = _inputs(sign(kind, payload))
    return good(f"{kind}-{name}", f"A {kind}.", f"verify {kind}", given, payload=payload)


def _bad(kind: str, name: str, payload: bytes) -> Case:
    text = f"A {kind} with a field that may not be so."
    return bad(f"{kind}-{name}", text, f"verify {kind}", _inputs(sign(kind, payload)), "field")


def _inputs(signed: bytes) -> dict[str, bytes]:
    return {"officer_key": OFFICER.spki, "signed": signed}
