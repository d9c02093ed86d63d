"""`send` and `revoke`: what the officer tells a Host over its interface."""

from pathlib import Path

import click
from msgspec import structs

from carnet import serials
from carnet.arguments import REASON
from carnet.console import print_json
from carnet.counting import counted
from carnet.errors import UsageError
from carnet.interface import Revocation
from carnet.wire.fields import UserId
from provisioning.checks import checked, read_key_id
from provisioning.host_interface import HostInterface, host_option
from provisioning.options import Station, json_option, officer_options


@click.command()
@click.argument("batch", type=click.Path(dir_okay=False, path_type=Path))
@host_option(required=True)
@officer_options
@json_option
def send(station: Station, batch: Path, host: tuple[str, str], as_json: bool) -> None:
    """Send a BATCH to its Host, which takes it in as `carnet-host import` does.

    Sending it again changes nothing.
    """
    received = HostInterface.of(host, station).send(batch)
    if as_json:
        print_json({"user_id": received.user_id, "pairs": received.pairs, "new": received.new})
    else:
        known = received.pairs - received.new
        click.echo(
            f"{counted(received.new, 'new key pair')} for {received.user_id}; {known} known."
        )


@click.command()
@click.option("--key", "keys", multiple=True, metavar="ID", help="This key pair, repeatable.")
@click.option("--user", "user_id", help="All pairs of this user.")
@click.option("--token-serial", help="All pairs of this token.")
@click.option("--reason", type=REASON, required=True, help="Why, for the accounts.")
@click.option("--lost", is_flag=True, help="They were lost: the accounts say so.")
@host_option(required=True)
@officer_options
@json_option
def revoke(
    station: Station,
    keys: tuple[str, ...],
    user_id: str | None,
    token_serial: str | None,
    reason: str,
    lost: bool,
    host: tuple[str, str],
    as_json: bool,
) -> None:
    """Have a Host turn valid pairs invalid, and end the tunnels of spent ones that live."""
    if [bool(keys), bool(user_id), bool(token_serial)].count(True) != 1:
        raise UsageError("Name what to revoke by one of --key, --user and --token-serial.")
    if token_serial and not serials.is_own(token_serial):
        raise UsageError(serials.NOBODYS)
    if user_id:
        checked(user_id, UserId, f"{user_id!r} is no user ID; write it as alice@office.")
    revocation = Revocation(
        key_ids=tuple(read_key_id(each).hex() for each in keys) or None,
        user_id=user_id,
        token_serial=token_serial,
        why=reason,
        lost=lost,
    )
    done = HostInterface.of(host, station).revoke(revocation)
    if as_json:
        print_json(structs.asdict(done))
        return
    if not (done.revoked or done.importing or done.tunnels):
        click.echo(
            "Nothing is left to do: what the Host knows of it was revoked before. "
            "A batch that is not imported yet is not among that."
        )
        return
    revoked, live = counted(done.revoked, "key pair"), counted(done.tunnels, "live tunnel")
    click.echo(f"{revoked} revoked, {live} will be ended.")
    if done.importing:
        early = counted(done.importing, "key pair")
        click.echo(f"An import is under way; {early} of it will never be valid.")
