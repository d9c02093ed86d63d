"""`carnet-host sweep`: giving up imports that were cut off."""

from pathlib import Path

import click

from carnet import console
from carnet.counting import agreeing, counted
from carnet.portions import batched
from carnet.secret_sources import secret_options
from carnet.token.batch_keys import BatchKeys
from carnet.token.nameless import sweep_nameless
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import TokenSession
from host_agent import config as configuration
from host_agent.agreement import check_agreement
from host_agent.importing import alone
from host_agent.keydb import KeyDatabase
from host_agent.local import PIN, hsm_session, open_database, read_pin
from host_agent.rollback import advance_mark, check_not_older

_AT_ONCE = 20
"""Keys that are destroyed while nobody else writes into the Key Database."""


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@secret_options("pin", PIN)
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.pass_obj
def sweep(path: Path, yes: bool, pin_fd: int | None, pin_file: Path | None, as_json: bool) -> None:
    """Destroy what imports that were cut off left on the HSM.

    No pair of theirs is valid, and nothing of them is used. Importing a batch again, now or
    later, takes it in all the same.
    """
    config = configuration.load(path)
    pin = read_pin(pin_fd, pin_file)
    with (
        open_database(config) as database,
        alone(database),
        hsm_session(config, pin) as session,
    ):
        check_agreement(database)
        # In an older one, pairs that are valid would be unknown.
        check_not_older(database, session)
        destroyed, batch_keys = _give_up(database, session, yes=yes)
        database.forget_imports()
        if destroyed or batch_keys:
            advance_mark(database, session, config.name)
    if as_json:
        console.print_json({"private_keys": destroyed, "batch_keys": batch_keys})
    else:
        what, are = _told(destroyed, batch_keys), agreeing(destroyed + batch_keys, "is", "are")
        click.echo(f"{what} {are} destroyed.")


def _told(private_keys: int, batch_keys: int) -> str:
    return f"{counted(private_keys, 'private key')} and {counted(batch_keys, 'batch key')}"


def _give_up(database: KeyDatabase, session: TokenSession, *, yes: bool) -> tuple[int, int]:
    """Destroy what is left; return how many private keys, and keys of batches."""
    serial = session.token.info.serial
    sweep_nameless(session)
    pairs, batches = OneTimeKeys(session), BatchKeys(session)
    key_ids = database.unfinished_keys(serial, pairs.listed())
    kek_ids = database.unfinished_batch_keys(serial)
    if not key_ids and not kek_ids:
        return 0, 0
    console.confirm(
        f"Destroy {_told(len(key_ids), len(kek_ids))} on the HSM, of imports that were not "
        f"finished?",
        yes=yes,
    )
    destroyed = sum(
        database.give_up_keys(serial, some, pairs.destroy) for some in batched(key_ids, _AT_ONCE)
    )
    return destroyed, sum(
        database.give_up_batch_key(serial, each, batches.destroy) for each in kek_ids
    )
