"""`carnet-target users`: membership and the access control list."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from ipaddress import ip_network

import click
from rich.table import Table
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from carnet.console import print_json, print_table
from carnet.durations import format_duration
from carnet.errors import CarnetError, IPsecError, UsageError
from carnet.ipsec.driver import Driver
from carnet.moments import format_moment
from carnet.objectives import Objective
from target_agent.access import AccessEntry, Member
from target_agent.commands.local import (
    LIFETIME,
    NETWORK,
    OBJECTIVE,
    USER,
    Local,
    json_option,
    make_driver,
    pass_local,
)
from target_agent.config import TargetConfig
from target_agent.control import Operator, Order
from target_agent.members import Members, as_facts
from target_agent.reach import Reach
from target_agent.unreadable import ended_without_records


@click.group()
def users() -> None:
    """Say who may have which tunnels."""


@users.command()
@click.argument("user", type=USER)
@click.option("--objective", type=OBJECTIVE, required=True, help="native, ah, esp or ah+esp.")
@click.option(
    "--network",
    "networks",
    type=NETWORK,
    multiple=True,
    required=True,
    help="A network she may reach, like 10.20.0.0/16, or Target's own address, like"
    " 198.51.100.2/32; may be repeated.",
)
@click.option(
    "--lifetime", type=LIFETIME, required=True, help="How long a tunnel may stand, like 8h."
)
@pass_local
def add(
    local: Local, user: str, objective: Objective, networks: tuple[str, ...], lifetime: int
) -> None:
    """Let USER (like alice@office) have tunnels with an objective to networks."""
    for network in networks:
        _check_behind(network, local.config)
    if objective is Objective.ESP:
        _check_reach(networks, make_driver(local.config))
    entries = [AccessEntry(objective, network, lifetime) for network in networks]
    with local.database() as engine:
        Members(engine).add(user, entries)
    click.echo(
        f"{user} may have {objective.label} to {', '.join(networks)}"
        f" for {format_duration(lifetime)} at most."
    )


def _check_behind(network: str, config: TargetConfig) -> None:
    wanted = ip_network(network)
    if wanted in [ip_network(address) for address in config.tunnels.addresses]:
        return
    behind = [ip_network(each) for each in config.tunnels.networks]
    if not any(wanted.version == n.version and wanted.subnet_of(n) for n in behind):  # type: ignore[arg-type]
        raise UsageError(
            f"{network} is not behind {config.name}; name one of its networks"
            f" ({', '.join(config.tunnels.networks)}), a part of one, or its own address."
        )


def _check_reach(networks: tuple[str, ...], driver: Driver) -> None:
    """Refuse what the IKE daemon would, as far as it answers: no key pair is spent here."""
    try:
        if not driver.capabilities().userspace:
            return
    except IPsecError:
        return
    out_of_reach = Reach().out_of_reach(networks)
    if out_of_reach:
        raise UsageError(
            f"This machine has no address in {', '.join(out_of_reach)}, which strongSwan's"
            " userspace ESP takes; give it one there, or name a wider network."
        )


@users.command()
@click.argument("user", type=USER)
@pass_local
def remove(local: Local, user: str) -> None:
    """Take USER's membership away, and end her tunnels."""
    driver, order = make_driver(local.config), Order("user-removed", user_id=user)
    with ended_without_records(local.config, driver, order), local.database() as engine:
        removed, ended = _remove(user, engine, local.operator(engine, driver), order)
    if not removed and not ended:
        raise UsageError(f"{user} is not a member; `carnet-target users list` shows who is.")
    click.echo(f"{user} is no member any more; tunnels ended: {len(ended)}.")


def _remove(user: str, engine: Engine, operator: Operator, order: Order) -> tuple[bool, set[str]]:
    """Take her membership away, and end her tunnels: before, where that takes long.

    She could come again as long as she is a member: so they are ended once more after it.
    """
    with operator.meanwhile(order, lambda: click.echo(_WAITING.format(user), err=True)) as before:
        try:
            removed, failed = Members(engine).remove(user), False
        except SQLAlchemyError:
            removed, failed = False, True
    if failed:
        with _said_after(f"{user} is a member still, and is to be removed again;"):
            ended = {*before, *operator.end(order)}
            raise CarnetError(_NOT_REMOVED.format(len(ended)))
    with _said_after(f"{user} is no member any more, but") if removed else nullcontext():
        return removed, {*before, *operator.end(order)}


_WAITING = (
    "The database is being written by another program; {} is removed as soon as it lets go, and her"
    " tunnels are ended now."
)
_NOT_REMOVED = (
    "The database cannot be written; see that its disk has room, and run this again (tunnels"
    " ended: {})."
)


@contextmanager
def _said_after(how: str) -> Iterator[None]:
    """Have what goes wrong with her tunnels say first how it is with her membership."""
    try:
        yield
    except CarnetError as error:
        why = error.sentence[0].lower() + error.sentence[1:]
        raise type(error)(f"{how} {why}") from error


@users.command(name="list")
@json_option
@pass_local
def list_(local: Local, as_json: bool) -> None:
    """List the members and what they may have."""
    with local.database() as engine:
        members = Members(engine).all()
    if as_json:
        print_json([_facts(member) for member in members])
    else:
        print_table(_table(members))


def _facts(member: Member) -> dict[str, object]:
    access = [as_facts(entry) for entry in member.entries]
    return {"user_id": member.user_id, "since": member.since, "access": access}


def _table(members: list[Member]) -> Table:
    table = Table("user", "member since", "objective", "network", "at most")
    for member in members:
        since = format_moment(member.since)
        for entry in member.entries:
            lifetime = format_duration(entry.lifetime)
            table.add_row(member.user_id, since, entry.objective.label, entry.network, lifetime)
    return table
