"""The chain of responsibility (the paper's Figure 3), as Host and Target both tell it.

Request, key pair, alice@office, membership, access control list, tunnel: each link
says on what it rests, and which record of the accounts shows it. What is told are the
records' own values. The other tables, which no chain and no signature holds together, give
the evidence alone, whose digest is in a record; where they say otherwise than the records,
that is told, too. Pure: no I/O.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from carnet.audit.chain import AuditRecord
from carnet.audit.heads import Examination
from carnet.audit.showing import plain
from carnet.durations import format_duration
from carnet.moments import format_moment
from carnet.objectives import Objective
from carnet.wire.envelope import PAIRED, SPLIT, verify_evidence
from carnet.wire.fault import WireError
from carnet.wire.fields import printable
from carnet.wire.keys import key_id_of
from carnet.wire.messages import Request
from carnet.wire.suites import find_suite

DATABASE = "database"
"""What a link is called that tells where another table says otherwise than the accounts."""


@dataclass(frozen=True)
class Link:
    """One link of the chain; `records` are numbers in the accounts."""

    link: str
    says: str
    records: tuple[int, ...] = ()
    differs: bool = False
    """Whether it tells that the database holds what the accounts do not bear out."""

    @property
    def is_of_database(self) -> bool:
        """Whether it tells of another table than the accounts."""
        return self.link == DATABASE


@dataclass(frozen=True)
class Evidence:
    """The Client's own signed request, and the pair that signed it, as the database has them."""

    signed: bytes
    """COSE_Sign1, as the Client made it."""
    public_key: bytes
    suite: int

    @property
    def digest(self) -> bytes:
        """SHA-256 of what the Client signed."""
        return hashlib.sha256(self.signed).digest()


def proved_request(evidence: Evidence, account: AuditRecord) -> tuple[Request | None, list[Link]]:
    """Return the request that the Client signed, and the links `request` and `key pair`.

    The evidence is what the record names, and its signature is verified anew. None where it is
    not, or does not hold.
    """
    records = (account.number,)
    try:
        _check_named(evidence, account)
        custody, request = _verify(evidence)
    except (_NotNamedError, WireError) as error:
        says = f"the evidence does not hold any more: {error}"
        return None, [Link("request", says, records, differs=True)]
    named = "" if account.facts.get(_DIGEST) else ", which the record, an older one, does not name"
    pair = Link(
        "key pair",
        f"one-time key pair {key_id_of(evidence.public_key).hex()} signed it, {_WHO[custody]};"
        f" the signature was verified just now"
        f" (SHA-256 of the evidence {evidence.digest.hex()}{named})",
        records,
    )
    return request, [Link("request", _asked(request), records), pair]


_DIGEST = "evidence_digest"


class _NotNamedError(Exception):
    """The evidence is not what the record names."""


def _check_named(evidence: Evidence, account: AuditRecord) -> None:
    named, number = account.facts.get(_DIGEST), account.number
    if named not in (None, evidence.digest):
        raise _NotNamedError(
            f"record {number} names evidence with the SHA-256 {plain(named)},"
            f" and the database has another"
        )
    pair = account.facts.get("key_id")
    if pair != key_id_of(evidence.public_key):
        raise _NotNamedError(
            f"record {number} names the key pair {plain(pair)},"
            f" and the database has another's public key"
        )


def differences(
    row: Mapping[str, object], proved: Mapping[str, object], *records: int
) -> Iterator[Link]:
    """Yield where a row of the database says otherwise than these records."""
    for name, value in proved.items():
        if row[name] != value:
            says = f"its {name} is {plain(row[name])}, where the accounts have {plain(value)}"
            yield differing(says, *records)


def differing(says: str, *records: int) -> Link:
    """Return a link that tells of what the accounts do not bear out."""
    return Link(DATABASE, says, records, differs=True)


_SAME = 60
"""Seconds that may lie between a change of a row and the record of it: they are written together,
but the database's clock goes on meanwhile."""


def dated_otherwise(
    column: str, moment: int | None, records: Sequence[AuditRecord]
) -> Iterator[Link]:
    """Yield where a moment is that of none of these records; where one is missing others tell."""
    if moment is None or not records:
        return
    if all(abs(each.at - moment) > _SAME for each in records):
        there, here = format_moment(moment), format_moment(records[-1].at)
        says = f"its {column} is {there}, where the accounts have {here}"
        yield differing(says, *(each.number for each in records))


def undated(column: str, records: Iterable[AuditRecord]) -> Link:
    """Return a link that tells of a moment that is missing, and of which these records tell."""
    numbers = (each.number for each in records)
    return differing(f"it has no {column}, where the accounts tell of that", *numbers)


def unrecorded(column: str) -> Link:
    """Return a link that tells of a moment that is in the database alone."""
    return differing(f"it has a moment as {column}, and no record tells of that")


def accounts_link(found: Examination, *, verified: bool) -> Link:
    """Return the link that says what holds the records together that all others rest on."""
    if found.signed:
        how = "verified just now" if verified else "not verified: that takes `audit verify`"
        signed = f"the signed head of record {found.signed} fits them, its signature {how}"
    else:
        signed = "none of them is signed yet"
    return Link("accounts", f"{found.records} records, each bound to the one before; {signed}")


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
    return [
        {"link": e.link, "says": e.says, "records": list(e.records), "differs": e.differs}
        for e in chain
    ]


def as_table(chain: Iterable[Link]) -> Table:
    """Return the links as a table for a person."""
    table = Table("link", "what it says", "records")
    for link in chain:
        table.add_row(link.link, printable(link.says), ", ".join(map(str, link.records)))
    return table
