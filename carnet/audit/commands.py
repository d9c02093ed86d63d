"""What `carnet-host audit` and `carnet-target audit` have in common."""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click

from carnet.audit import responsibility, showing
from carnet.audit.chain import AuditRecord
from carnet.audit.heads import BY_NO_KEY, Examination
from carnet.console import print_json, print_table, require_output
from carnet.database.reading import readable
from carnet.durations import parse_duration
from carnet.errors import CarnetError, UsageError
from carnet.files import open_regular, read_small

T = TypeVar("T")


class Moment(click.ParamType[int]):
    """A moment: so long ago (8h), or a date and time (2026-11-24, 2026-11-24T08:30)."""

    name = "moment"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return seconds since 1970; a usage error where it is no moment."""
        if isinstance(value, int):
            return value
        text = str(value)
        try:
            return int(time.time()) - parse_duration(text)
        except ValueError:
            return self._date(text, param, ctx)

    def _date(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            sentence = f"{text!r} is no moment; write 8h, 2026-11-24 or 2026-11-24T08:30."
            self.fail(sentence, param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


since_option = click.option(
    "--since", type=Moment(), default=0, help="From then on: 8h (ago), or a date and time in UTC."
)
until_option = click.option("--until", type=Moment(), help="Up to then.")
event_option = click.option("--event", help="Only events of that name.")
witness_option = click.option(
    "--head",
    "witnesses",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="A signed head that was kept elsewhere (`audit head`), to compare with.",
)


def show_records(records: Iterable[AuditRecord], choice: showing.Choice, *, as_json: bool) -> None:
    """Print the records that are wanted."""
    require_output()
    wanted = showing.chosen(records, choice)
    if as_json:
        print_json(list(_readably(showing.as_json(record) for record in wanted)))
        return
    for line in _readably(showing.describe(record) for record in wanted):
        click.echo(line)


def _readably(read: Iterable[T]) -> Iterator[T]:
    """Yield what is read, with readable() around the reading and not around its use."""
    with readable():
        yield from read


def show_chains(
    chains: Sequence[Sequence[responsibility.Link]],
    found: Examination,
    *,
    other_keys: str,
    as_json: bool,
) -> None:
    """Print chains of responsibility; raises CarnetError where not all of it is proved.

    Where records are missing no other table is compared with those that are there.
    """
    require_output()
    if not found.is_chained:
        chains = [[each for each in chain if not each.is_of_database] for chain in chains]
    for chain in chains:
        if as_json:
            print_json(responsibility.as_json(chain))
        else:
            print_table(responsibility.as_table(chain))
    check(found, other_keys=other_keys)
    if any(link.differs for chain in chains for link in chain):
        raise CarnetError(
            "The database says of this request what its accounts do not: go by the accounts, once "
            "`audit verify` finds them whole; keep this database, and restore one that agrees "
            "with them."
        )


def show_head(signed: bytes | None) -> None:
    """Print a signed head in hexadecimal; raises UsageError where there is none."""
    if signed is None:
        raise UsageError("No head is signed yet; the service signs one when it runs.")
    click.echo(signed.hex())


def read_witnesses(paths: Iterable[Path]) -> list[bytes]:
    """Return the heads in files that `audit head` wrote; raises UsageError."""
    try:
        return [bytes.fromhex(_read(path).decode("ascii")) for path in paths]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"A file with a signed head cannot be read: {error}; name one that `audit head` "
            f"printed."
        ) from error


def _read(path: Path) -> bytes:
    open_regular(path).close()
    return read_small(path)


def report(found: Examination, *, other_keys: str, as_json: bool) -> None:
    """Say what was found; raises CarnetError as check() does."""
    if as_json:
        print_json({**vars(found), "whole": found.broken_at is None})
    check(found, other_keys=other_keys)
    if not as_json:
        click.echo(
            f"The accounts are whole: {found.records} records, signed up to record {found.signed}."
        )


def check(found: Examination, *, other_keys: str) -> None:
    """Raise CarnetError where the accounts are broken.

    `other_keys` says how to give keys that may be missing.
    """
    if found.reason == BY_NO_KEY:
        raise CarnetError(
            f"The head of record {found.broken_at} is by no key of these accounts that was "
            f"given: {other_keys}; if it is by none of them the accounts were changed, so keep "
            f"this database, and compare it with a backup."
        )
    if found.broken_at is not None:
        raise CarnetError(
            f"The accounts were changed at record {found.broken_at}: {found.reason};"
            f" keep this database, and compare it with a backup."
        )
