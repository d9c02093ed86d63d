"""`sheet`: what the officer prints and hands out with a token."""

from dataclasses import asdict
from pathlib import Path

import click

from carnet.console import print_json
from carnet.cover import read_cover
from carnet.errors import TokenError, UsageError
from carnet.token.cryptoki import given_parameters
from carnet.token.finding import name_to_give
from carnet.token.onetime import OneTimeKeys
from carnet.token.session import TokenSession
from provisioning.covered import check_finished, cover_option, read_covered
from provisioning.journal import TokenJournal, is_unfinished
from provisioning.options import TokenAccess, directory_option, json_option, token_options
from provisioning.output import check_writable, write_new
from provisioning.sheet import Sheet, as_text, sheet_of

_PDF = ".pdf"
_MAX_CONTACT = 200


@click.command()
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"A new file, PDF if it ends in {_PDF}  [default: text on standard output].",
)
@click.option("--contact", help="Whom to call  [default: a line to write it on].")
@cover_option
@directory_option
@token_options
@json_option
def sheet(
    access: TokenAccess,
    directory: Path,
    out: Path | None,
    contact: str | None,
    cover: Path | None,
    as_json: bool,
) -> None:
    """Print the sheet that goes with a token to its user; no secret is on it."""
    if contact is not None and not (contact.isprintable() and 0 < len(contact) <= _MAX_CONTACT):
        raise UsageError(f"--contact is one line of 1 to {_MAX_CONTACT} characters; mend it.")
    if out is not None:
        check_writable(out)
    with access.login().session(writable=False) as session:
        if cover is not None:
            made = _by_file(session, cover, directory, contact)
        else:
            made = _by_token(session, contact)
    if out is not None:
        write_new(out, _rendered(made, out))
    if as_json:
        print_json({**asdict(made), "file": out})
    elif out is None:
        click.echo(as_text(made), nl=False)
    else:
        click.echo(f"{out} is the sheet of token {made.label} for {made.user_id}.")


def _by_token(session: TokenSession, contact: str | None) -> Sheet:
    label, pairs = session.token.info.label, OneTimeKeys(session).pairs()
    prefixes = TokenJournal().unfinished(session)
    if any(is_unfinished(pair, prefixes) for pair in pairs):
        raise TokenError(
            f"A mint on token {label} was cut off; mint again, by the same command, before you "
            f"hand it out."
        )
    module = name_to_give(session.token.module.path)
    return sheet_of(
        session.token.info,
        read_cover(session),
        pairs,
        contact,
        module=module,
        parameters=given_parameters(),
    )


def _by_file(session: TokenSession, path: Path, directory: Path, contact: str | None) -> Sheet:
    file, booklet = read_covered(session, path, directory)
    check_finished(session, path)
    module = name_to_give(session.token.module.path)
    return sheet_of(
        session.token.info,
        file.cover,
        booklet.pairs(),
        contact,
        module=module,
        parameters=given_parameters(),
        cover_file=path.name,
    )


def _rendered(made: Sheet, out: Path) -> bytes:
    if out.suffix.lower() != _PDF:
        return as_text(made).encode()
    from provisioning.sheet_pdf import as_pdf  # noqa: PLC0415  only a PDF needs its library

    return as_pdf(made)
