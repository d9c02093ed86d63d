"""`carnet-target audit`: the accounts, and what they prove."""

from collections.abc import Sequence
from pathlib import Path

import click
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from sqlalchemy import Connection, Engine

from carnet.audit import commands as shared
from carnet.audit import read
from carnet.audit.chain import about
from carnet.audit.heads import Examination, examine, newest_head
from carnet.audit.responsibility import Link, accounts_link
from carnet.audit.showing import Choice
from carnet.database import for_reading, snapshot
from carnet.database.reading import readable
from carnet.errors import UsageError
from carnet.files import read_small
from target_agent.commands.local import REQUEST_ID, USER, Local, json_option, pass_local
from target_agent.explain import answer_to, explain, unaccounted
from target_agent.records import Records, rows_of
from target_agent.schema import audit as audit_table
from target_agent.schema import audit_heads

_OTHER_KEYS = "give the link's certificates before this one by --certificate"
_certificate_option = click.option(
    "--certificate",
    "certificates",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="An earlier certificate of this Target, under whose key heads were signed.",
)


@click.group()
def audit() -> None:
    """Read the accounts and check them."""


@audit.command()
@click.option("--user", type=USER, help="Only what is about this user.")
@click.option("--request", "request_id", type=REQUEST_ID, help="Only what is about this request.")
@shared.event_option
@shared.since_option
@shared.until_option
@json_option
@pass_local
def show(
    local: Local,
    user: str | None,
    request_id: bytes | None,
    event: str | None,
    since: int,
    until: int | None,
    as_json: bool,
) -> None:
    """Show the accounts, oldest first."""
    with local.database() as engine:
        hers = _requests_of(engine, user) if user else frozenset()
        wanted = frozenset({request_id}) if request_id else hers
        choice = Choice(None if request_id else user, wanted, event, until)
        with for_reading(engine).connect() as connection:
            records = read(connection, audit_table, since=since)
            shared.show_records(records, choice, as_json=as_json)


def _requests_of(engine: Engine, user: str) -> frozenset[bytes]:
    with readable():
        return frozenset(each.request_id for each in Records(engine).all() if each.user_id == user)


@audit.command()
@_certificate_option
@shared.witness_option
@json_option
@pass_local
def verify(
    local: Local, certificates: tuple[Path, ...], witnesses: tuple[Path, ...], as_json: bool
) -> None:
    """Check that no record was changed, moved, dropped or cut off."""
    kept, keys = shared.read_witnesses(witnesses), _public_keys(local, certificates)
    with local.database() as engine, snapshot(engine) as connection, readable():
        found = examine(connection, audit_table, audit_heads, keys, kept)
    shared.report(found, other_keys=_OTHER_KEYS, as_json=as_json)


def _public_keys(local: Local, earlier: tuple[Path, ...]) -> list[bytes]:
    return [_public_key(path) for path in (local.config.link.certificate, *earlier)]


def _public_key(path: Path) -> bytes:
    try:
        certificate = x509.load_pem_x509_certificate(read_small(path))
    except (OSError, ValueError) as error:
        raise UsageError(f"Cannot read the certificate {path}; correct the path.") from error
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@audit.command()
@pass_local
def head(local: Local) -> None:
    """Print the newest signed head, to be kept where this machine's operator cannot write."""
    with local.database() as engine, snapshot(engine) as connection, readable():
        newest = newest_head(connection, audit_heads)
    shared.show_head(newest)


@audit.command(name="explain")
@click.argument("request_id", metavar="REQUEST-ID", type=REQUEST_ID)
@_certificate_option
@shared.witness_option
@json_option
@pass_local
def explain_(
    local: Local,
    request_id: bytes,
    certificates: tuple[Path, ...],
    witnesses: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Show the chain of responsibility, from the request to its tunnel.

    It is told from the accounts, which are verified as `audit verify` does, and compared with
    the other tables of the database.
    """
    kept, keys = shared.read_witnesses(witnesses), _public_keys(local, certificates)
    with local.database() as engine, snapshot(engine) as connection, readable():
        found, chain = explained(connection, request_id, keys, kept)
    if not chain and found.broken_at is None:
        raise UsageError(
            f"There is no record of a request {request_id.hex()};"
            " `carnet-target tunnels list --all` shows those there are."
        )
    shared.show_chains([chain] if chain else [], found, other_keys=_OTHER_KEYS, as_json=as_json)


def explained(
    connection: Connection,
    request_id: bytes,
    keys: Sequence[bytes],
    witnesses: Sequence[bytes] = (),
) -> tuple[Examination, list[Link]]:
    """Return what the accounts are worth, and the chain; none where nothing has the request."""
    found = examine(connection, audit_table, audit_heads, keys, witnesses)
    chain = _chain(connection, request_id, found.records)
    return found, [*chain, accounts_link(found, verified=True)] if chain else []


def _chain(connection: Connection, request_id: bytes, records: int) -> list[Link]:
    """Return the chain by so many first records."""
    rows = rows_of(connection, request_id)
    accounts = about(connection, audit_table, request_id, records)
    answer = answer_to(request_id, rows, accounts)
    if answer is None:
        return [unaccounted()] if rows else []
    of_user = about(connection, audit_table, answer.facts["user_id"].encode(), records)
    known = {each.number: each for each in accounts + of_user}
    return list(explain(answer, rows, [known[number] for number in sorted(known)]))
