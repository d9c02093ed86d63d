"""The chain of responsibility, from the Host's records: the paper's Figure 3. No I/O.

Membership and the access control list are Target's to show: `carnet-target audit
explain` tells the rest, by the same Request ID.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from carnet.audit import AuditRecord
from carnet.audit.responsibility import Evidence, Link, evidence_links
from carnet.moments import format_moment


@dataclass(frozen=True, kw_only=True)
class RequestAccount:
    """One request and its pair, as the Key Database has them."""

    request_id: bytes
    key_id: bytes
    user_id: str
    token_serial: str
    batch_id: bytes
    label: str
    suite: int
    public_key: bytes
    evidence: bytes
    target: str


def explain(request: RequestAccount, accounts: Iterable[AuditRecord]) -> Iterator[Link]:
    """Yield the links, from the request to the tunnel's end, as far as Host knows them."""
    mine = [each for each in accounts if _is_about(each, request)]
    events = {event: _numbers(mine, event) for event in ("imported", "spent")}
    evidence = Evidence(request.evidence, request.public_key, request.suite)
    yield from evidence_links(evidence, events["spent"])
    yield Link(
        "user",
        f"the pair is {request.user_id}'s: {request.label!r} on token {request.token_serial}, "
        f"of batch {request.batch_id.hex()}, which the officer signed",
        events["imported"],
    )
    for each in mine:
        if each.event in _SAYS:
            link, says = _SAYS[each.event]
            told = says.format_map(defaultdict(str, {"target": request.target, **each.facts}))
            yield Link(link, f"{format_moment(each.at)} {told}", (each.number,))


def _is_about(record: AuditRecord, request: RequestAccount) -> bool:
    facts = record.facts
    if "key_id" in facts:
        return bool(facts["key_id"] == request.key_id)
    return bool(facts.get("request_id") == request.request_id)


def _numbers(records: Iterable[AuditRecord], event: str) -> tuple[int, ...]:
    return tuple(each.number for each in records if each.event == event)


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
