"""The chain of responsibility, from the records: the paper's Figure 3.

What Target's records show of it. Pure: no I/O.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from carnet.audit import AuditRecord
from carnet.audit.responsibility import (
    Evidence,
    Link,
    dated_otherwise,
    differences,
    differing,
    proved_request,
    undated,
    unrecorded,
)
from carnet.durations import format_duration
from carnet.moments import format_moment
from carnet.wire.messages import RefusalCode, Request
from target_agent.records import TunnelRecord

_ANSWERS = ("tunnel-prepared", "tunnel-refused")
_ABOUT_USERS = ("access-granted", "member-removed")
_WITHOUT_ROW = (RefusalCode.EVIDENCE, RefusalCode.TOO_LATE)
"""Codes of refusals that prove nothing of their Request ID, and so have a record alone."""


def answer_to(
    request_id: bytes, rows: Iterable[TunnelRecord], accounts: Iterable[AuditRecord]
) -> AuditRecord | None:
    """Return the record of the answer to a request; None if there is none.

    A Host may have sent other evidence under the same Request ID, which was refused: what
    counts is the tunnel, else the refusal of what is kept.
    """
    answers = [
        each
        for each in accounts
        if each.event in _ANSWERS
        and each.facts.get("request_id") == request_id
        and "evidence_digest" in each.facts
    ]
    kept = {Evidence(row.evidence, row.public_key, row.suite).digest for row in rows}
    prepared = [each for each in answers if each.event == "tunnel-prepared"]
    refused = [each for each in answers if each.facts["evidence_digest"] in kept]
    return next(iter(prepared + refused + answers), None)


def explain(
    answer: AuditRecord, rows: Sequence[TunnelRecord], accounts: Sequence[AuditRecord]
) -> Iterator[Link]:
    """Yield the links, from the request to the tunnel, or to where it was refused.

    `answer` is the record of it, `accounts` are those of its Request ID and of its user.
    """
    mine, hers = _sort(answer, accounts)
    request: Request | None = None
    for row in rows[:1]:
        evidence = Evidence(row.evidence, row.public_key, row.suite)
        request, links = proved_request(evidence, answer)
        yield from links
    facts = answer.facts
    says = f"{facts['host']} certified the request as {facts['user_id']}'s, over TLS"
    yield Link("user", says, (answer.number,))
    if answer.event == "tunnel-prepared":
        yield from _granted(answer, hers)
    yield from (_step(each) for each in mine)
    yield from (_other(each) for each in accounts if _is_other(each, answer))
    yield from _amiss(answer, request, rows, mine)


def unaccounted() -> Link:
    """Return the link that tells of a request that is in the database alone."""
    return differing("it has a row of this request, and no record shows an answer to it")


def _sort(
    answer: AuditRecord, accounts: Sequence[AuditRecord]
) -> tuple[list[AuditRecord], list[AuditRecord]]:
    """Return what the accounts say of this request, and, before its answer, of its user."""
    named = answer.facts
    mine = [
        each
        for each in accounts
        if each.facts.get("request_id") == named["request_id"]
        and each.facts.get("evidence_digest", named["evidence_digest"]) == named["evidence_digest"]
    ]
    hers = [
        each
        for each in accounts
        if each.event in _ABOUT_USERS
        and each.number < answer.number
        and each.facts.get("user_id") == named["user_id"]
    ]
    return mine, hers


def _granted(answer: AuditRecord, hers: list[AuditRecord]) -> Iterator[Link]:
    """Yield membership and access control list, as they were since she was last removed."""
    removed = max((each.number for each in hers if each.event == "member-removed"), default=0)
    granted = [each for each in hers if each.number > removed]
    user_id = answer.facts["user_id"]
    if granted:
        says = f"{user_id} was a member since {format_moment(granted[0].at)}"
        yield Link("membership", says, (granted[0].number,))
    else:
        says = f"the accounts do not show {user_id} as a member"
        yield Link("membership", says, (answer.number,), differs=True)
    for entry in answer.facts["access"]:
        yield _access(answer, entry, granted)


def _access(answer: AuditRecord, entry: dict[str, Any], granted: list[AuditRecord]) -> Link:
    says = (
        f"{entry['objective']} to {entry['network']}, {format_duration(entry['lifetime'])} at most"
    )
    granting = [each.number for each in granted if entry.items() <= each.facts.items()]
    if granting:
        return Link("access control list", says, tuple(granting[-1:]))
    says = f"the accounts do not show that she was granted {says}"
    return Link("access control list", says, (answer.number,), differs=True)


def _step(account: AuditRecord) -> Link:
    facts, number = account.facts, (account.number,)
    if account.event == "tunnel-refused":
        return Link("refused", f"{facts['code']}: {facts['reason']}", number)
    if account.event == "tunnel-prepared":
        what = _prepared(facts)
    else:
        what = {
            "tunnel-established": "established, its pre-shared keys forgotten",
            "tunnel-ending": f"to end as soon as the IKE daemon lets it go: {facts.get('reason')}",
            "tunnel-ended": f"ended: {facts.get('reason')}",
        }.get(account.event, account.event)
    return Link("tunnel", f"{format_moment(account.at)} {what}", number)


def _is_other(account: AuditRecord, answer: AuditRecord) -> bool:
    """Tell whether it answers other evidence under the same Request ID."""
    facts = account.facts
    return (
        account.event in _ANSWERS
        and facts.get("request_id") == answer.facts["request_id"]
        and facts.get("evidence_digest") != answer.facts["evidence_digest"]
    )


def _other(account: AuditRecord) -> Link:
    facts = account.facts
    if account.event == "tunnel-prepared":
        return differing("the accounts show another tunnel for this Request ID", account.number)
    says = f"{facts['host']} sent other evidence under this Request ID: {facts['code']}"
    return Link("other evidence", says, (account.number,))


def _prepared(facts: dict[str, Any]) -> str:
    whom = facts["virtual_address"] or "her own address"
    return f"prepared for {whom} to {' '.join(facts['networks']) or 'Target alone'}"


def _amiss(
    answer: AuditRecord,
    request: Request | None,
    rows: Sequence[TunnelRecord],
    mine: list[AuditRecord],
) -> Iterator[Link]:
    """Yield what the records do not bear out."""
    if len(rows) > 1 or (not rows and answer.facts.get("code") not in _WITHOUT_ROW):
        yield differing(f"it has {len(rows)} rows of this request, and not one", answer.number)
    if request is not None:
        signed = {"request_id": request.request_id, "user_id": request.user_id}
        yield from differences(signed, {name: answer.facts[name] for name in signed}, answer.number)
    proved = {name: answer.facts[name] for name in _SAME} | _became(answer, request, mine)
    for row in rows:
        yield from differences(vars(row), proved, answer.number)
        # An older record does not name its answer.
        if answer.facts.get("answer_digest") not in (None, row.answer_digest):
            says = "the answer that it has for a repeated Request ID is not the one that was given"
            yield differing(says, answer.number)
        yield from _moments_amiss(answer, row, mine)


_DATED = (("established_at", "tunnel-established"), ("ended_at", "tunnel-ended"))
"""Columns with a moment, each with the event that it is the moment of."""


def _moments_amiss(
    answer: AuditRecord, row: TunnelRecord, mine: list[AuditRecord]
) -> Iterator[Link]:
    """Yield where a moment is not that of a record, or is in one place alone."""
    yield from dated_otherwise("answered_at", row.answered_at, [answer])
    for column, event in _DATED:
        moment, records = getattr(row, column), [each for each in mine if each.event == event]
        yield from dated_otherwise(column, moment, records)
        if moment is None and records:
            yield undated(column, records)
        elif moment is not None and not records:
            yield unrecorded(column)


_SAME = ("request_id", "key_id", "user_id", "host", "evidence_digest")


def _became(
    answer: AuditRecord, request: Request | None, mine: list[AuditRecord]
) -> dict[str, object]:
    """Return what the row of a request says of its answer and of what came later."""
    proved: dict[str, object] = {} if request is None else {"objective_id": request.objective_id}
    if answer.event == "tunnel-refused":
        if request is not None:
            proved["networks"] = " ".join(request.request_info.networks or ())
        return proved | {"state": "refused", "virtual_address": None, "expires_at": None}
    facts = answer.facts
    events = {each.event: each.facts for each in mine}
    states = ("ended", "established")
    state = next((each for each in states if f"tunnel-{each}" in events), "prepared")
    reasons = [events[e]["reason"] for e in ("tunnel-ended", "tunnel-ending") if e in events]
    return proved | {
        "networks": " ".join(facts["networks"]),
        "virtual_address": facts["virtual_address"],
        "expires_at": facts["expires_at"],
        "state": state,
        "end_reason": next(iter(reasons), None),
    }
