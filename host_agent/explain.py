"""The chain of responsibility, from the Host's records: the paper's Figure 3. No I/O.

Membership and the access control list are Target's to show: `carnet-target audit
explain` tells the rest, by the same Request ID.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from carnet.audit import AuditRecord
from carnet.audit.responsibility import (
    DATABASE,
    Evidence,
    Link,
    dated_otherwise,
    differences,
    differing,
    proved_request,
    undated,
    unrecorded,
)
from carnet.audit.showing import plain
from carnet.moments import format_moment
from host_agent.keydb.records import RECORDED
from host_agent.store_name import KeyStoreName


@dataclass(frozen=True)
class Rows:
    """What the Key Database's other tables say of a pair, by column; nobody has proved it."""

    pairs: Sequence[Mapping[str, Any]] = ()
    requests: Sequence[Mapping[str, Any]] = ()
    copies: Sequence[Mapping[str, Any]] = ()
    """Of its private key, one for each HSM."""
    wrapped: Sequence[Mapping[str, Any]] = ()
    """Of its private key as it is kept wrapped, one for each key that it is under."""


def spendings(request_id: bytes, accounts: Iterable[AuditRecord]) -> list[AuditRecord]:
    """Return the records of pairs that this request has spent: the Request ID is the Client's."""
    return [each for each in _of(accounts, "spent") if each.facts.get("request_id") == request_id]


def explain(spent: AuditRecord, rows: Rows, accounts: Iterable[AuditRecord]) -> Iterator[Link]:
    """Yield the links, from the request to the tunnel's end, as far as Host knows them.

    `spent` is the record of the request, `accounts` are those of its pair and Request ID.
    """
    accounts = list(accounts)
    mine = [each for each in accounts if _is_about(each, spent)]
    imported = _of(mine, "imported")
    found: list[Link] = []
    if rows.pairs and rows.requests:
        links, found = _evidence(spent, rows.pairs[0], rows.requests[0])
        yield from links
    yield from (_user(each) for each in imported)
    for each in mine:
        if each.event in _SAYS:
            link, says = _SAYS[each.event]
            told = says.format_map(
                defaultdict(str, {"target": spent.facts["target"], **each.facts})
            )
            yield Link(link, f"{format_moment(each.at)} {told}", (each.number,))
    yield from (_unproved(each, imported) for each in rows.pairs[:1])
    yield from found
    yield from _amiss(spent, imported, rows, mine)
    yield from _moments_amiss(rows, mine)
    yield from _ends_amiss(rows, mine, is_alone=len(spendings(_request_of(spent), accounts)) == 1)
    for pair in rows.pairs:
        yield from _burn_amiss(pair, rows, imported, _of(mine, "key-destroyed"))


def unaccounted(key_id: bytes) -> Link:
    """Return the link that tells of a request that is in the database alone."""
    return differing(f"it says that this request spent pair {key_id.hex()}, and no record does")


def _evidence(
    spent: AuditRecord, pair: Mapping[str, Any], request: Mapping[str, Any]
) -> tuple[list[Link], list[Link]]:
    """Return the links that the evidence gives, and where it differs from the record."""
    evidence = Evidence(request["evidence"], pair["public_key"], pair["suite"])
    signed, links = proved_request(evidence, spent)
    if signed is None:
        return links, []
    says = {
        "request_id": signed.request_id,
        "user_id": signed.user_id,
        "target": signed.request_info.target,
        "objective_id": signed.objective_id,
    }
    return links, list(differences(says, {name: spent.facts[name] for name in says}, spent.number))


def _user(imported: AuditRecord) -> Link:
    facts = imported.facts
    on = f" on token {facts['token_serial']}" if "token_serial" in facts else ""
    says = (
        f"the pair is {facts['user_id']}'s{on}, of batch {facts['batch_id'].hex()}, which the"
        f" officer signed"
    )
    return Link("user", says, (imported.number,))


def _unproved(pair: Mapping[str, Any], imported: list[AuditRecord]) -> Link:
    """Tell what no record has."""
    says = f"its row calls the pair {pair['label']!r}"
    if not any("token_serial" in each.facts for each in imported):
        says += f" on token {pair['token_serial']}"
    return Link(DATABASE, f"{says}; no record proves that")


def _amiss(
    spent: AuditRecord, imported: list[AuditRecord], rows: Rows, mine: list[AuditRecord]
) -> Iterator[Link]:
    """Yield what the records do not bear out."""
    if len(imported) != 1:
        yield differing(f"the accounts show {len(imported)} imports of its pair, and not one")
    if len(_of(mine, "spent")) != 1:
        yield differing("the accounts show that its pair was spent more than once", spent.number)
    for table, there in (("pair", rows.pairs), ("request", rows.requests)):
        if len(there) != 1:
            yield differing(f"it has {len(there)} rows of the {table}, and not one", spent.number)
    for row in rows.pairs:
        for each in imported[:1]:
            facts = {name: each.facts[name] for name in RECORDED if name in each.facts}
            yield from differences(row, facts, each.number)
        yield from differences(row, {"state": "invalid", "reason": "spent"}, spent.number)
    for row in rows.requests:
        yield from differences(row, {name: spent.facts[name] for name in _SPENT}, spent.number)
        for event, column, fact in _LATER:
            yield from _later(row, column, fact, _of(mine, event))


_SPENT = ("key_id", "request_id", "target", "objective_id", "digest")
"""Columns of a request that its record has, too; the digest is that of the sealed request."""
_LATER = (
    ("answered", "outcome", "outcome"),
    ("tunnel-ended", "end_reason", "reason"),
    ("tunnel-ended", "ended_at", "ended_at"),
)
"""Events, each with the column that is set with it and the fact that is the same."""


def _later(
    row: Mapping[str, Any], column: str, fact: str, records: list[AuditRecord]
) -> Iterator[Link]:
    # An older record may lack it.
    value = records[-1].facts.get(fact, row[column]) if records else None
    yield from differences(row, {column: value}, *(each.number for each in records[-1:]))


_ALWAYS = ("spent", "answered")
"""Events of which a moment is never taken away, nor missing for another reason."""
_DATED = (
    ("imported", "pairs", "imported_at"),
    ("spent", "requests", "spent_at"),
    ("spent", "pairs", "invalid_at"),
    ("answered", "requests", "answered_at"),
    ("tunnel-revoked", "requests", "revoked_at"),
    ("tunnel-end-asked", "requests", "end_asked_at"),
    ("key-destroyed", "pairs", "key_destroyed_at"),
)
"""Events, each with the column that its moment is in."""


def _moments_amiss(rows: Rows, mine: list[AuditRecord]) -> Iterator[Link]:
    """Yield where a moment is not that of a record; where one is missing others tell."""
    for event, table, column in _DATED:
        for row in getattr(rows, table):
            records = _of(mine, event)
            if event in _ALWAYS and records and row[column] is None:
                yield undated(column, records)
            yield from dated_otherwise(column, row[column], records)
    for copy in rows.copies:
        here = [e for e in _of(mine, "key-destroyed") if e.facts.get("hsm") == copy["hsm_serial"]]
        yield from dated_otherwise("destroyed_at", copy["destroyed_at"], here)


_MOMENTS = (
    ("tunnel-revoked", "revoked_at"),
    ("tunnel-end-asked", "end_asked_at"),
    ("tunnel-ended", "ended_at"),
)
"""Events, each with the moment of a request that is set with it."""


def _ends_amiss(rows: Rows, mine: list[AuditRecord], *, is_alone: bool) -> Iterator[Link]:
    """Yield where the end of its tunnel is in one place alone.

    Those records name the Request ID alone, which may have spent other pairs (`is_alone`).
    """
    for row in rows.requests:
        for event, column in _MOMENTS:
            records = _of(mine, event)
            if row[column] is not None and not records:
                yield unrecorded(column)
            elif row[column] is None and records and is_alone:
                yield undated(column, records)


def _burn_amiss(
    pair: Mapping[str, Any],
    rows: Rows,
    imported: list[AuditRecord],
    destroyed: list[AuditRecord],
) -> Iterator[Link]:
    """Yield where a private key is said to be gone, or to be there, and the accounts have it not.

    What was given up before the pair came is no burn of it. One whose key came late onto an
    HSM is owed again.
    """
    since = [each for each in destroyed if not imported or each.number > imported[0].number]
    yield from _copies_amiss(rows.copies, destroyed, since)
    numbers = [each.number for each in since]
    all_gone = all(copy["destroyed_at"] is not None for copy in rows.copies)
    is_gone = bool(since) and all_gone
    if is_gone and pair["key_destroyed_at"] is None:
        yield differing("it says that its private key may be there, and it is gone", *numbers)
    elif not is_gone and pair["key_destroyed_at"] is not None:
        says = "it says that its private key is gone from everywhere, and no record tells of that"
        yield differing(says, *numbers)
    if since and rows.wrapped:
        yield differing("it keeps its private key, wrapped, which was destroyed", *numbers)
    elif pair["key_store"] == KeyStoreName.WRAPPED and all_gone and not (since or rows.wrapped):
        yield differing("it does not keep its private key, wrapped, and no record tells of its end")


def _copies_amiss(
    copies: Sequence[Mapping[str, Any]], destroyed: list[AuditRecord], since: list[AuditRecord]
) -> Iterator[Link]:
    """Yield where an HSM's copy is gone by a row alone, or by a record alone.

    An import that was given up may have left one on the HSM that was in no row.
    """
    hsms = {each.facts.get("hsm") for each in destroyed}
    for copy in copies:
        if copy["destroyed_at"] is not None and copy["hsm_serial"] not in hsms:
            says = f"it says that HSM {copy['hsm_serial']} destroyed its private key"
            yield differing(f"{says}, and no record does")
    listed = {None, *(copy["hsm_serial"] for copy in copies)}
    for each in since:
        serial = each.facts.get("hsm")
        if serial not in listed:
            says = f"it does not name HSM {plain(serial)} as one that had its private key"
            yield differing(f"{says}, and the accounts do", each.number)


def _request_of(spent: AuditRecord) -> bytes:
    request_id: bytes = spent.facts["request_id"]
    return request_id


def _of(records: Iterable[AuditRecord], event: str) -> list[AuditRecord]:
    return [each for each in records if each.event == event]


def _is_about(record: AuditRecord, spent: AuditRecord) -> bool:
    facts, whose = record.facts, spent.facts
    if "key_id" in facts:
        return bool(facts["key_id"] == whose["key_id"])
    at = facts.get("target", whose["target"])
    return bool(facts.get("request_id") == whose["request_id"] and at == whose["target"])


_SAYS = {
    "spent": ("Host", "the pair was made invalid for ever, and she was passed on to {target}"),
    "answered": (
        "Target",
        "{target} answered: {outcome}; its own accounts show membership and access control list",
    ),
    "key-destroyed": ("key pair", "its private key at the Host was destroyed"),
    "tunnel-revoked": ("tunnel", "revoked: {why}"),
    "tunnel-end-asked": ("tunnel", "{target} was told to end it"),
    "tunnel-ended": ("tunnel", "ended: {reason}"),
}
