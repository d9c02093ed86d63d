"""`carnet-target tunnels`: what stands, what stood, and how to end it."""

import time
from collections.abc import Iterator, Mapping

import click
from msgspec import structs
from rich.table import Column, Table

from carnet.console import print_json, print_table
from carnet.database.reading import readable
from carnet.durations import format_duration
from carnet.errors import IPsecError, UsageError
from carnet.ipsec.driver import Driver, TunnelStatus
from carnet.ipsec.drivers import made_with
from carnet.moments import format_moment
from carnet.objectives import Objective
from carnet.tunnel import tunnel_name
from target_agent.commands.local import (
    REQUEST_ID,
    USER,
    Local,
    Parsed,
    json_option,
    make_driver,
    pass_local,
)
from target_agent.control import Order
from target_agent.records import LIVE, Records, TunnelRecord
from target_agent.unreadable import ended_without_records

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
    with local.database() as engine, readable():
        records = Records(engine)
        found = records.all() if everything else records.live()
    live = _live(local, found)
    if as_json:
        print_json(facts(found, live))
    else:
        print_table(_table(found, live))


def _live(local: Local, records: list[TunnelRecord]) -> dict[bytes, TunnelStatus]:
    """Return what the IKE daemons say of those that stand; of one's none where it is silent.

    Each tunnel is asked for at the daemon of the driver that it was made with.
    """
    live: dict[bytes, TunnelStatus] = {}
    for driver, its in _by_driver(local, [each for each in records if each.state in LIVE]):
        try:
            live |= reports(its, driver)
        except IPsecError as error:
            click.echo(f"What is up cannot be told: {error.sentence}", err=True)
    return live


def _by_driver(
    local: Local, records: list[TunnelRecord]
) -> Iterator[tuple[Driver, list[TunnelRecord]]]:
    if not records:
        return
    usual, choice = make_driver(local.config), local.config.drivers
    found: dict[str, tuple[Driver, list[TunnelRecord]]] = {}
    for record in records:
        driver = made_with(record.driver, usual, choice)
        found.setdefault(driver.name, (driver, []))[1].append(record)
    yield from found.values()


def reports(records: list[TunnelRecord], driver: Driver) -> dict[bytes, TunnelStatus]:
    """Return what the IKE daemon says of tunnels, by Request ID; raises IPsecError."""
    standing = {tunnel_name(r.request_id): r.request_id for r in records if r.state in LIVE}
    return {standing[each.name]: each for each in driver.status() if each.name in standing}


def facts(
    records: list[TunnelRecord], live: Mapping[bytes, TunnelStatus]
) -> list[dict[str, object]]:
    """Return what there is to say of tunnels, for scripts."""
    return [_facts(record, live.get(record.request_id)) for record in records]


def _facts(record: TunnelRecord, live: TunnelStatus | None) -> dict[str, object]:
    return {name: getattr(record, name) for name in _SHOWN} | {
        "objective": Objective(record.objective_id).label,
        "networks": record.networks.split(),
        "seconds_left": _seconds_left(record),
        "live": structs.asdict(live) if live else None,
    }


def _seconds_left(record: TunnelRecord) -> int | None:
    if record.state not in LIVE or record.expires_at is None:
        return None
    return max(0, record.expires_at - int(time.time()))


def _table(records: list[TunnelRecord], live: Mapping[bytes, TunnelStatus]) -> Table:
    table = Table(
        Column("request", no_wrap=True, min_width=32),
        "user",
        "address",
        "networks",
        "state",
        "objective",
        "until",
        "left",
        "from",
        "protected by",
        "bytes in (newest keys)",
        "bytes out (newest keys)",
        "rekeys",
    )
    for record in records:
        table.add_row(
            record.request_id.hex(),
            record.user_id,
            record.virtual_address,
            record.networks,
            f"{record.state} ({record.end_reason})" if record.end_reason else record.state,
            Objective(record.objective_id).label,
            _until(record),
            _left(record),
            *_shown(live.get(record.request_id)),
        )
    return table


def _left(record: TunnelRecord) -> str:
    seconds = _seconds_left(record)
    return "" if seconds is None else format_duration(seconds)


def _shown(live: TunnelStatus | None) -> tuple[str, ...]:
    if live is None:
        return ("",) * 5
    suites = f"{live.child_suite or 'no IPsec'}, IKE {live.ike_suite}"
    ppk = "post-quantum key" if live.ppk else "no post-quantum key"
    rekeys = "" if live.rekeys is None else str(live.rekeys)
    return (
        live.remote_address, f"{suites}, {ppk}", str(live.bytes_in), str(live.bytes_out), rekeys,
    )  # fmt: skip


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
    driver = make_driver(local.config)
    with ended_without_records(local.config, driver, which), local.database() as engine:
        ended = local.operator(engine, driver).end(which)
    if not ended:
        raise UsageError("No such tunnel is live; `carnet-target tunnels list` shows what is.")
    click.echo(f"Tunnels ended: {', '.join(ended)}.")
