"""`carnet-target audit`: the accounts, and what they prove."""

import time
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from carnet.audit import AuditRecord, find_break, read
from carnet.console import print_json
from carnet.database import transaction
from carnet.errors import CarnetError, UsageError
from target_agent.commands.local import (
    DURATION,
    REQUEST_ID,
    USER,
    Local,
    json_option,
    pass_local,
)
from target_agent.explain import Link, explain
from target_agent.records import Records
from target_agent.schema import audit as audit_table


@click.group()
def audit() -> None:
    """Read the accounts and check them."""


@audit.command()
@click.option("--user", type=USER, help="Only what is about this user.")
@click.option("--since", type=DURATION, help="Only what happened so long ago at most, like 8h.")
@json_option
@pass_local
def show(local: Local, user: str | None, since: int | None, as_json: bool) -> None:
    """Show the accounts, oldest first."""
    earliest = int(time.time()) - since if since else 0
    with local.database() as engine:
        accounts = _read(engine)
        mine = _requests_of(engine, user) if user else frozenset()
    shown = [
        each
        for each in accounts
        if each.at >= earliest and (user is None or _is_about(each, user, mine))
    ]
    if as_json:
        print_json([_facts(each) for each in shown])
    else:
        Console().print(_table(shown))


def _facts(record: AuditRecord) -> dict[str, object]:
    return {
        "number": record.number,
        "at": record.at,
        "event": record.event,
        "facts": record.facts,
    }


def _read(engine: Engine) -> list[AuditRecord]:
    with transaction(engine) as connection:
        return list(read(connection, audit_table))


def _requests_of(engine: Engine, user: str) -> frozenset[bytes]:
    return frozenset(each.request_id for each in Records(engine).all() if each.user_id == user)


def _is_about(record: AuditRecord, user: str, requests: frozenset[bytes]) -> bool:
    facts = record.facts
    return facts.get("user_id") == user or facts.get("request_id") in requests


def _table(records: list[AuditRecord]) -> Table:
    table = Table("no.", "at", "event", "facts")
    for record in records:
        facts = ", ".join(f"{name} {_plain(value)}" for name, value in record.facts.items())
        at = f"{datetime.fromtimestamp(record.at, UTC):%Y-%m-%d %H:%M:%SZ}"
        table.add_row(str(record.number), at, record.event, facts)
    return table


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


@audit.command()
@pass_local
def verify(local: Local) -> None:
    """Check that no record was changed, moved or dropped before the last one."""
    with local.database() as engine, transaction(engine) as connection:
        broken = find_break(connection, audit_table)
        count = sum(1 for _ in read(connection, audit_table)) if broken is None else 0
    if broken is not None:
        raise CarnetError(
            f"The accounts were changed: record {broken} is not what was written;"
            " keep this file, and compare it with a backup."
        )
    click.echo(f"The accounts are whole: {count} records.")


@audit.command(name="explain")
@click.argument("request_id", metavar="REQUEST-ID", type=REQUEST_ID)
@json_option
@pass_local
def explain_(local: Local, request_id: bytes, as_json: bool) -> None:
    """Show the chain of responsibility, from the request to its tunnel."""
    with local.database() as engine:
        record = Records(engine).find(request_id)
        accounts = _read(engine)
    if record is None:
        raise UsageError(
            f"There is no record of a request {request_id.hex()};"
            " `carnet-target tunnels list --all` shows those there are."
        )
    chain = list(explain(record, accounts))
    if as_json:
        print_json([_link_facts(link) for link in chain])
    else:
        Console().print(_chain(chain))


def _link_facts(link: Link) -> dict[str, object]:
    return {"link": link.link, "says": link.says, "records": list(link.records)}


def _chain(chain: list[Link]) -> Table:
    table = Table("link", "what it says", "records")
    for link in chain:
        table.add_row(link.link, link.says, ", ".join(map(str, link.records)))
    return table
