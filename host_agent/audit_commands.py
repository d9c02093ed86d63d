"""`carnet-host audit`: the accounts, and what they prove."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from cryptography.hazmat.primitives import serialization
from sqlalchemy import Connection

from carnet import console
from carnet.arguments import REASON
from carnet.audit import commands as shared
from carnet.audit import read
from carnet.audit.chain import about
from carnet.audit.heads import Examination, examine, newest_head
from carnet.audit.responsibility import Link, accounts_link
from carnet.audit.showing import Choice
from carnet.database.reading import readable
from carnet.errors import UsageError
from carnet.files import read_small
from carnet.secret_sources import secret_options
from carnet.token.accounts import accounts_key, read_marks
from host_agent import config as configuration
from host_agent import schema
from host_agent.explain import explain, spendings, unaccounted
from host_agent.keydb.explained import rows_about
from host_agent.local import PIN, hsm_session, open_database, print_public_key, read_pin
from host_agent.rollback import accept_older
from softhsm.durable import durably

F = TypeVar("F", bound=Callable[..., Any])
json_option = click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")

_OTHER_KEYS = (
    "of a Host with several HSMs give the keys of all by --key, each from `carnet-host audit key`"
)


def _key_option(otherwise: str) -> Callable[[F], F]:
    return click.option(
        "--key",
        "keys",
        multiple=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help=f"The accounts' public key, from `audit key`; {otherwise}.",
    )


@click.group()
def audit() -> None:
    """Read the accounts and check them."""


@audit.command()
@click.option("--user", help="Only what is about this user.")
@click.option("--request", "request_id", help="Only what is about this Request ID.")
@shared.event_option
@shared.since_option
@shared.until_option
@json_option
@click.pass_obj
def show(
    path: Path,
    user: str | None,
    request_id: str | None,
    event: str | None,
    since: int,
    until: int | None,
    as_json: bool,
) -> None:
    """Show the accounts, oldest first."""
    database_of = open_database(configuration.load(path))
    wanted = {_request_id(request_id)} if request_id else set()
    with database_of as database, database.begin() as connection:
        with readable():
            hers = set(database.request_ids(user)) if user else set()
        choice = Choice(None if request_id else user, wanted or hers, event, until)
        shared.show_records(read(connection, schema.audit, since=since), choice, as_json=as_json)


@audit.command()
@secret_options("pin", PIN)
@_key_option("without it the HSM is asked")
@shared.witness_option
@json_option
@click.pass_obj
def verify(
    path: Path,
    keys: tuple[Path, ...],
    witnesses: tuple[Path, ...],
    pin_fd: int | None,
    pin_file: Path | None,
    as_json: bool,
) -> None:
    """Check that no record was changed, moved, dropped or cut off."""
    config = configuration.load(path)
    kept = shared.read_witnesses(witnesses)
    if keys:
        trusted = _read_keys(keys)
    else:
        with hsm_session(config, read_pin(pin_fd, pin_file)) as session:
            trusted = [accounts_key(session)]
            kept += read_marks(session)
    with open_database(config) as database, database.begin() as connection, readable():
        found = examine(connection, schema.audit, schema.audit_heads, trusted, kept)
    shared.report(found, other_keys=_OTHER_KEYS, as_json=as_json)


@audit.command()
@secret_options("pin", PIN)
@click.pass_obj
def key(path: Path, pin_fd: int | None, pin_file: Path | None) -> None:
    """Print the public key of the accounts (PEM), for who verifies them without the HSM."""
    with hsm_session(configuration.load(path), read_pin(pin_fd, pin_file)) as session:
        with durably(session):
            public_key = accounts_key(session)
        print_public_key(public_key, "to compare with whoever verifies")


@audit.command()
@click.pass_obj
def head(path: Path) -> None:
    """Print the newest signed head, to be kept where this machine's operator cannot write."""
    database_of = open_database(configuration.load(path))
    with database_of as database, database.begin() as connection, readable():
        newest = newest_head(connection, schema.audit_heads)
    shared.show_head(newest)


@audit.command()
@click.option("--reason", type=REASON, required=True, help="What happened to the newer database.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@secret_options("pin", PIN)
@click.pass_obj
def restored(path: Path, reason: str, yes: bool, pin_fd: int | None, pin_file: Path | None) -> None:
    """Go on with an older Key Database: pairs spent since the backup are valid again."""
    config = configuration.load(path)
    with hsm_session(config, read_pin(pin_fd, pin_file)) as session:
        console.confirm(
            "Are all processes of this Host stopped, and is every pair revoked that may have been "
            "spent since?",
            yes=yes,
        )
        with open_database(config) as database:
            accept_older(database, session, config.name, reason)
    click.echo(
        "The HSM goes by this database from now on. A Host that ran meanwhile remembers more, and "
        "has the HSM remember that, at the latest as it stops; if one did, stop it and run this "
        "once more."
    )


@audit.command(name="explain")
@click.argument("request_id", metavar="REQUEST-ID")
@_key_option("without it no signature is verified")
@shared.witness_option
@json_option
@click.pass_obj
def explain_(
    path: Path,
    request_id: str,
    keys: tuple[Path, ...],
    witnesses: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Show the chain of responsibility, from the request to its tunnel.

    It is told from the accounts, and compared with the Key Database. That the accounts hold
    together is checked; with --key, that they are signed, too, as `audit verify` does.
    """
    wanted, trusted = _request_id(request_id), _read_keys(keys) or None
    kept = shared.read_witnesses(witnesses)
    database_of = open_database(configuration.load(path))
    with database_of as database, database.snapshot() as connection, readable():
        found, chains = explained(connection, wanted, trusted, kept)
    if not chains and found.broken_at is None:
        raise UsageError(
            f"There is no record of a request {request_id}; "
            f"`carnet-host keys --json` shows those there are."
        )
    shared.show_chains(chains, found, other_keys=_OTHER_KEYS, as_json=as_json)


def explained(
    connection: Connection,
    request_id: bytes,
    keys: Sequence[bytes] | None = None,
    witnesses: Sequence[bytes] = (),
) -> tuple[Examination, list[list[Link]]]:
    """Return what the accounts are worth, and the chain of each pair that a request has spent."""
    found = examine(connection, schema.audit, schema.audit_heads, keys, witnesses)
    last = accounts_link(found, verified=keys is not None)
    return found, [[*each, last] for each in _chains(connection, request_id, found.records)]


def _chains(connection: Connection, request_id: bytes, records: int) -> list[list[Link]]:
    """Return the chain of each pair that a request has spent, by so many first records."""
    of_request = about(connection, schema.audit, request_id, records)
    spent = spendings(request_id, of_request)
    key_ids = {each.facts["key_id"] for each in spent}
    rows = rows_about(connection, request_id, key_ids)
    chains = [[unaccounted(key_id)] for key_id in sorted(rows.keys() - key_ids)]
    for each in spent:
        key_id = each.facts["key_id"]
        of_pair = about(connection, schema.audit, key_id, records)
        accounts = {record.number: record for record in of_request + of_pair}
        chains.append(list(explain(each, rows[key_id], [accounts[n] for n in sorted(accounts)])))
    return chains


def _request_id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{text} is no Request ID; it has 32 hexadecimal digits.") from None


def _read_keys(paths: Iterable[Path]) -> list[bytes]:
    keys = []
    for path in paths:
        try:
            public_key = serialization.load_pem_public_key(read_small(path))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} is no public key in PEM; print it anew.") from error
        keys.append(
            public_key.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
    return keys
