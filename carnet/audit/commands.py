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


def show_chain(chain: Sequence[responsibility.Link], *, as_json: bool) -> None:
    """Print a chain of responsibility."""
    if as_json:
        print_json(responsibility.as_json(chain))
    else:
        print_table(responsibility.as_table(chain))


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


def report(examination: Examination, *, other_keys: str, as_json: bool) -> None:
    """Say what was found; raises CarnetError where the accounts are broken.

    `other_keys` says how to give keys that may be missing.
    """
    if as_json:
        print_json({**vars(examination), "whole": examination.broken_at is None})
    if examination.reason == BY_NO_KEY:
        raise CarnetError(
            f"The head of record {examination.broken_at} is by no key of these accounts that was "
            f"given: {other_keys}; if it is by none of them the accounts were changed, so keep "
            f"this database, and compare it with a backup."
        )
    if examination.broken_at is not None:
        raise CarnetError(
            f"The accounts were changed at record {examination.broken_at}: {examination.reason};"
            f" keep this database, and compare it with a backup."
        )
    if not as_json:
        click.echo(
            f"The accounts are whole: {examination.records} records, signed up to record"
            f" {examination.signed}."
        )
