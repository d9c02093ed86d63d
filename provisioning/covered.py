"""Pairs whose cover is a file: which of a token's keys they are, by the officer's word."""

from pathlib import Path

import click

from carnet.cover import CoverFile, read_cover_file
from carnet.errors import TokenError, UsageError
from carnet.files import read_small
from carnet.token.adopted import AdoptedKeys
from carnet.token.session import TokenSession
from carnet.wire.cover_file import MAX_COVER_FILE
from provisioning.in_file import FileJournal
from provisioning.officer import public_key_of

cover_option = click.option(
    "--cover",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The cover of a token that stores none, as `mint` or `adopt` wrote it.",
)


def read_covered(
    session: TokenSession, path: Path, directory: Path
) -> tuple[CoverFile, AdoptedKeys]:
    """Return what the file says, verified under the officer's certificate, and its pairs.

    Raises TokenError for a file that is not hers for this token, UsageError.
    """
    try:
        data = read_small(path, MAX_COVER_FILE)
    except OSError as error:
        raise UsageError(f"Cannot read {path} ({error.strerror}); correct the path.") from error
    file = read_cover_file(data, public_key_of(directory), session.token.info.serial)
    return file, AdoptedKeys(session, file.pairs)


def check_finished(session: TokenSession, path: Path) -> None:
    """Raise TokenError for the cover of a mint that was cut off."""
    if FileJournal(path).unfinished(session):
        raise TokenError(
            f"The mint that {path} is of was cut off; run it again before you hand it out."
        )
