"""The chain of responsibility (the paper's Figure 3), as Host and Target both tell it.

Request, key pair, alice@office, membership, access control list, tunnel: each link
says on what it rests, and which record of the accounts shows it. Pure: no I/O.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.table import Table

from carnet.durations import format_duration
from carnet.objectives import Objective
from carnet.wire.envelope import PAIRED, SPLIT, verify_evidence
from carnet.wire.fault import WireError
from carnet.wire.fields import printable
from carnet.wire.keys import key_id_of
from carnet.wire.messages import Request
from carnet.wire.suites import find_suite


@dataclass(frozen=True)
class Link:
    """One link of the chain; `records` are numbers in the accounts."""

    link: str
    says: str
    records: tuple[int, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """The Client's own signed request, and the pair that signed it."""

    signed: bytes
    """COSE_Sign1, as the Client made it."""
    public_key: bytes
    suite: int


def evidence_links(evidence: Evidence, records: tuple[int, ...] = ()) -> Iterator[Link]:
    """Yield the links `request` and `key pair`, by verifying the signature anew."""
    try:
        custody, request = _verify(evidence)
    except WireError as error:
        yield Link("request", f"the evidence does not hold any more: {error}", records)
        return
    yield Link("request", _asked(request), records)
    key_id, digest = key_id_of(evidence.public_key), hashlib.sha256(evidence.signed)
    yield Link(
        "key pair",
        f"one-time key pair {key_id.hex()} signed it, {_WHO[custody]};"
        f" the signature was verified just now"
        f" (SHA-256 of the evidence {digest.hexdigest()})",
        records,
    )


_WHO = {
    PAIRED: "which her token and the Host's HSM have",
    SPLIT: "which her token alone has (custody split)",
}


def _verify(evidence: Evidence) -> tuple[str, Request]:
    """Verify a signature anew; return the custody that it was made for, and the request."""
    suite = find_suite(evidence.suite)
    try:
        return PAIRED, verify_evidence(evidence.signed, evidence.public_key, suite).request
    except WireError:
        return SPLIT, verify_evidence(evidence.signed, evidence.public_key, suite, SPLIT).request


def _asked(request: Request) -> str:
    info = request.request_info
    where = "all she may reach" if info.networks is None else ", ".join(info.networks)
    long = "as long as she may" if info.lifetime is None else format_duration(info.lifetime)
    return (
        f"{request.request_id.hex()}: {request.user_id} asks {info.target} for"
        f" {Objective(request.objective_id).label} to {where}, {long}"
    )


def as_json(chain: Iterable[Link]) -> list[dict[str, object]]:
    """Return the links, for scripts."""
    return [{"link": e.link, "says": e.says, "records": list(e.records)} for e in chain]


def as_table(chain: Iterable[Link]) -> Table:
    """Return the links as a table for a person."""
    table = Table("link", "what it says", "records")
    for link in chain:
        table.add_row(link.link, printable(link.says), ", ".join(map(str, link.records)))
    return table
