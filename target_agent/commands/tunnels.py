"""`carnet-target tunnels`: what stands, what stood, and how to end it."""

import click
from rich.table import Column, Table

from carnet.console import print_json, print_table
from carnet.errors import UsageError
from carnet.moments import format_moment
from carnet.objectives import Objective
from target_agent.commands.local import (
    REQUEST_ID,
    USER,
    Local,
    Parsed,
    json_option,
    make_driver,
    pass_local,
)
from target_agent.control import Operator, Order
from target_agent.records import Records, TunnelRecord

_SHOWN = (
    "request_id",
    "user_id",
    "host",
    "key_id",
    "virtual_address",
    "state",
    "answered_at",
    "established_at",
    "expires_at",
    "ended_at",
    "end_reason",
)


@click.group()
def tunnels() -> None:
    """List tunnels, and end them."""


@tunnels.command(name="list")
@click.option("--all", "everything", is_flag=True, help="Also what ended and what was refused.")
@json_option
@pass_local
def list_(local: Local, everything: bool, as_json: bool) -> None:
    """List the tunnels that are prepared or established."""
    with local.database() as engine:
        records = Records(engine)
        found = records.all() if everything else records.live()
    if as_json:
        print_json([_facts(record) for record in found])
    else:
        print_table(_table(found))


def _facts(record: TunnelRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in _SHOWN} | {
        "objective": Objective(record.objective_id).label,
        "networks": record.networks.split(),
    }


def _table(records: list[TunnelRecord]) -> Table:
    table = Table(
        Column("request", no_wrap=True, min_width=32),
        "user",
        "address",
        "networks",
        "state",
        "until",
    )
    for record in records:
        table.add_row(
            record.request_id.hex(),
            record.user_id,
            record.virtual_address,
            record.networks,
            f"{record.state} ({record.end_reason})" if record.end_reason else record.state,
            _until(record),
        )
    return table


def _until(record: TunnelRecord) -> str:
    moment = record.ended_at or record.expires_at
    return format_moment(moment) if moment else ""


def _parse_which(text: str) -> Order:
    if "@" in text:
        return Order("ended-by-operator", user_id=USER.convert(text, None, None))
    request_id: bytes = REQUEST_ID.convert(text, None, None)
    return Order("ended-by-operator", request_id=request_id.hex())


@tunnels.command()
@click.argument("which", metavar="REQUEST-ID|USER", type=Parsed("tunnel", _parse_which))
@pass_local
def end(local: Local, which: Order) -> None:
    """End the tunnel of a request, or all tunnels of a user."""
    with local.database() as engine:
        operator = Operator(local.config, make_driver(local.config), Records(engine))
        ended = operator.end(which)
    if not ended:
        raise UsageError("No such tunnel is live; `carnet-target tunnels list` shows what is.")
    click.echo(f"Tunnels ended: {', '.join(ended)}.")
