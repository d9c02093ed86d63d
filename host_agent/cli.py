"""The operator's command: `carnet-host`."""

import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from carnet import VERSION, console, interruption, serials
from carnet.arguments import REASON
from carnet.config import parse_config
from carnet.counting import counted
from carnet.database.reading import readable
from carnet.errors import UsageError
from carnet.files import private_directory, write_private
from carnet.lazy import LazyGroup
from carnet.running import run_command
from carnet.secret_sources import secret_options
from host_agent import config as configuration
from host_agent.local import (
    PIN,
    accept_option,
    hsm_session,
    open_database,
    print_public_key,
    read_pin,
)


@click.group(
    cls=LazyGroup,
    lazy={
        "audit": "host_agent.audit_commands:audit",
        "doctor": "host_agent.doctor_command:doctor",
        "host-keys": "host_agent.host_key_commands:host_keys",
        "install-units": "carnet.units:host",
        "sweep": "host_agent.sweep_command:sweep",
    },
    help="Carnet's Host: the trusted machine that knows the one-time key pairs.",
)
@click.version_option(VERSION)
@click.option(
    "--config",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"Configuration file [{configuration.DEFAULT_PATH}].",
)
@click.pass_context
def cli(context: click.Context, path: Path | None) -> None:
    """Remember which configuration file is meant, and hear of signals but in the service.

    It has asyncio hear of them.
    """
    if context.invoked_subcommand != serve.name:
        interruption.listen()
    named = os.environ.get(configuration.PATH_VARIABLE)
    context.obj = path or (Path(named) if named else configuration.DEFAULT_PATH)


@cli.command()
@click.option("--name", default="office", show_default=True, help="Behind the @ of user IDs.")
@click.option(
    "--target",
    "targets",
    nargs=2,
    multiple=True,
    metavar="NAME URL",
    default=(("work", "https://gateway.example.org:8471"),),
    help="A Target and where it is, such as: work https://gateway.example.org:8471.",
)
@click.pass_obj
def init(path: Path, name: str, targets: tuple[tuple[str, str], ...]) -> None:
    """Write a commented configuration file."""
    if path.exists():
        raise UsageError(f"{path} is there already; edit it, or move it away first.")
    text = configuration.render(name, targets)
    parse_config(path, text, configuration.HostConfig)
    private_directory(path.parent)
    write_private(path, text.encode())
    click.echo(f"Wrote {path}; edit it, then run `carnet-host transport-key`.")


@cli.command()
@secret_options("pin", PIN)
@click.pass_obj
def serve(path: Path, pin_fd: int | None, pin_file: Path | None) -> None:
    """Answer travellers' requests until told to stop."""
    from carnet.service import run, start_log
    from host_agent.serving import serve as service

    config = configuration.load(path)
    pin = read_pin(pin_fd, pin_file)
    start_log(config.observation.log)
    run(service(config, pin, partial(configuration.load, path)))


@cli.command("transport-key")
@secret_options("pin", PIN)
@accept_option
@click.pass_obj
def transport_key(
    path: Path, pin_fd: int | None, pin_file: Path | None, accept_unfit: bool
) -> None:
    """Print the HSM's transport key, to which the officer mints (PEM)."""
    from carnet.token.transport import host_transport_key
    from host_agent.fitness import check_fit
    from softhsm.durable import durably

    with hsm_session(configuration.load(path), read_pin(pin_fd, pin_file)) as session:
        check_fit(session, accept=accept_unfit)
        with durably(session):
            public_key = host_transport_key(session)
        print_public_key(public_key, "to compare with the officer")


@cli.command("import")
@click.argument("batch_path", metavar="BATCH", type=click.Path(dir_okay=False, path_type=Path))
@secret_options("pin", PIN)
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Show how far it is  [default: on a terminal].",
)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.pass_obj
def import_(
    path: Path,
    batch_path: Path,
    pin_fd: int | None,
    pin_file: Path | None,
    progress: bool | None,
    as_json: bool,
) -> None:
    """Take in a batch of key pairs that the officer minted: all of it, or nothing."""
    from carnet.progress import progress_bar
    from host_agent import importing
    from host_agent.agreement import check_agreement
    from host_agent.batch_file import batch_at
    from host_agent.fitness import tell_if_unfit
    from host_agent.revoked_meanwhile import check_not_revoked, revoked_of_it, under_way
    from host_agent.rollback import advance_mark

    config = configuration.load(path)
    bars = partial(progress_bar, wanted=progress)
    with batch_at(batch_path, config) as batch:
        pin = read_pin(pin_fd, pin_file)
        with (
            open_database(config, make=True) as database,
            importing.alone(database) as still_alone,
            importing.OwnHsmToken(config, pin) as hsm,
        ):
            check_agreement(database)
            hsm.use(tell_if_unfit)
            store = importing.store_for(batch, database, config)
            if remark := importing.other_store(batch, store, config):
                click.echo(f"carnet-host: {remark}", err=True)
            with under_way(batch, database):
                new = importing.take_in(batch, hsm, database, store, bars, still_alone=still_alone)
            hsm.use(lambda session: advance_mark(database, session, config.name))
            check_not_revoked(batch, database)
            if remark := revoked_of_it(batch, database):
                click.echo(f"carnet-host: {remark}", err=True)
    user_id, count = batch.head.user_id, batch.count
    if as_json:
        console.print_json({"user_id": user_id, "pairs": count, "new": new})
    else:
        click.echo(f"{counted(new, 'new key pair')} for {user_id}; {count - new} known.")


_STATES = ("valid", "invalid", "spent", "revoked", "expired", "lost", "owed")


@cli.command()
@click.option("--user", help="Only this user's pairs.")
@click.option(
    "--state",
    type=click.Choice(_STATES),
    help="Only pairs in this state, or invalid for this reason; owed: destruction still owed.",
)
@click.option(
    "--batches", is_flag=True, help="Of key store `wrapped`, the keys of batches on the HSM."
)
@click.option("--json", "as_json", is_flag=True, help="Print every pair, or batch, as JSON.")
@click.pass_obj
def keys(path: Path, user: str | None, state: str | None, batches: bool, as_json: bool) -> None:
    """List the key pairs: counts by user, state and key store (or custody split), or as JSON.

    Private keys whose destruction is still owed are listed one by one. What an import that
    was cut off left on an HSM is counted; import the batch again, or run `carnet-host sweep`.
    """
    from host_agent import listing

    found: list[Any]
    with open_database(configuration.load(path)) as database, readable():
        if batches:
            found = listing.batches(database) if as_json else listing.batch_lines(database)
        elif as_json:
            found = listing.pairs(database, user, state)
        else:
            found = list(listing.lines(database, user, state))
    if as_json:
        console.print_json(found)
        return
    for line in found:
        click.echo(line)


@cli.command()
@click.option("--key", help="The pair of this key_id (hexadecimal).")
@click.option("--user", help="All pairs of this user.")
@click.option("--token-serial", help="All pairs of this token.")
@click.option("--reason", type=REASON, required=True, help="Why, for the accounts.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.pass_obj
def revoke(
    path: Path,
    key: str | None,
    user: str | None,
    token_serial: str | None,
    reason: str,
    as_json: bool,
) -> None:
    """Turn valid pairs invalid, and end the tunnels of spent ones that live.

    The service asks Target to end the tunnels within seconds, and destroys the private
    keys within a minute.
    """
    from host_agent import attendance, revoking
    from host_agent.keydb import Revocation

    values, config = _named(key, user, token_serial), configuration.load(path)
    with open_database(config) as database, readable():
        done = revoking.revoke(database, Revocation(reason), **values)
        before = revoking.revoked_before(database, done, **values)
        owed = database.ends_owed(**values)
    if as_json:
        facts = {"revoked": done.key_ids, "importing": done.importing, "tunnels": done.tunnels}
        console.print_json(facts)
    else:
        click.echo("\n".join(revoking.lines(done, *before, owed)))
    if owed and not attendance.is_served(config):
        console.complain(attendance.unattended(config))


def _named(key: str | None, user: str | None, token_serial: str | None) -> dict[str, Any]:
    """Return what is to be revoked, by the database's names; raises UsageError."""
    which = {"key_id": key, "user_id": user, "token_serial": token_serial}
    given = {name: value for name, value in which.items() if value is not None}
    if len(given) != 1:
        raise UsageError("Name what to revoke by one of --key, --user and --token-serial.")
    if token_serial is not None and not serials.is_own(token_serial):
        raise UsageError(serials.NOBODYS)
    return {"key_id": _key_id(key)} if key is not None else {**given}


def _key_id(text: str) -> bytes:
    with suppress(ValueError):
        if key_id := bytes.fromhex(text):
            return key_id
    raise UsageError(f"{text!r} is no key_id; `carnet-host keys --json` lists them.")


def main() -> None:
    """Run the command."""
    run_command(cli, "carnet-host")
