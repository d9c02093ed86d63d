"""The chain of responsibility, from the records: the paper's Figure 3.

What Target's records show of it. Pure: no I/O.
"""

from collections.abc import Iterable, Iterator

from carnet.audit import AuditRecord
from carnet.audit.responsibility import Evidence, Link, evidence_links
from carnet.durations import format_duration
from carnet.moments import format_moment
from target_agent.records import TunnelRecord


def explain(record: TunnelRecord, accounts: Iterable[AuditRecord]) -> Iterator[Link]:
    """Yield the links, from the request to the tunnel, or to where it was refused."""
    mine, hers = _sort(record, accounts)
    shown_by = tuple(each.number for each in mine[:1])
    yield from evidence_links(Evidence(record.evidence, record.public_key, record.suite), shown_by)
    yield Link("user", f"{record.host} certified the request as {record.user_id}'s, over TLS")
    if record.state == "refused":
        yield from (_refusal(each) for each in mine)
        return
    yield _membership(record, hers)
    yield from _access(mine, hers)
    yield from (_step(record, each) for each in mine)


def _sort(
    record: TunnelRecord, accounts: Iterable[AuditRecord]
) -> tuple[list[AuditRecord], list[AuditRecord]]:
    """Return what the accounts say of this request's row, and, before that, of its user."""
    mine: list[AuditRecord] = []
    hers: list[AuditRecord] = []
    for each in accounts:
        facts = each.facts
        of_request = facts.get("request_id") == record.request_id
        if of_request and facts.get("evidence_digest", record.evidence_digest) == (
            record.evidence_digest
        ):
            mine.append(each)
        elif not mine and facts.get("user_id") == record.user_id and each.event in _ABOUT_USERS:
            hers.append(each)
    return mine, hers


_ABOUT_USERS = ("access-granted", "member-removed")


def _refusal(account: AuditRecord) -> Link:
    facts = account.facts
    return Link("refused", f"{facts.get('code')}: {facts.get('reason')}", (account.number,))


def _membership(record: TunnelRecord, hers: list[AuditRecord]) -> Link:
    """Her membership is as old as her first grant since she was last removed."""
    removed = max((each.number for each in hers if each.event == "member-removed"), default=0)
    granted = [each for each in hers if each.number > removed]
    if not granted:
        return Link("membership", f"the accounts do not show {record.user_id} as a member")
    first = granted[0]
    says = f"{record.user_id} was a member since {format_moment(first.at)}"
    return Link("membership", says, (first.number,))


def _access(mine: list[AuditRecord], hers: list[AuditRecord]) -> Iterator[Link]:
    prepared = [each for each in mine if each.event == "tunnel-prepared"]
    for entry in (entry for each in prepared for entry in each.facts.get("access", ())):
        granting = [each.number for each in hers if entry.items() <= each.facts.items()]
        says = (
            f"{entry['objective']} to {entry['network']},"
            f" {format_duration(entry['lifetime'])} at most"
        )
        yield Link("access control list", says, tuple(granting[-1:]))


def _step(record: TunnelRecord, account: AuditRecord) -> Link:
    facts = account.facts
    what = {
        "tunnel-prepared": f"prepared for {_whom(record)} to {record.networks or 'Target alone'}",
        "tunnel-established": "established, its pre-shared keys forgotten",
        "tunnel-ending": f"to end as soon as the IKE daemon lets it go: {facts.get('reason')}",
        "tunnel-ended": f"ended: {facts.get('reason')}",
    }.get(account.event, account.event)
    return Link("tunnel", f"{format_moment(account.at)} {what}", (account.number,))


def _whom(record: TunnelRecord) -> str:
    return record.virtual_address or "her own address"
