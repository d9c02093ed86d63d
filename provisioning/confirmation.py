"""Having the label typed of a token that is to be wiped."""

import click

from carnet.console import has_terminal
from carnet.errors import UsageError


def confirm_by_label(label: str, typed: str | None) -> None:
    """Have the label of the token that is to be wiped typed; UsageError if it is another."""
    if typed is None:
        if not has_terminal():
            raise UsageError("There is no terminal to confirm at; confirm with --confirm LABEL.")
        typed = click.prompt(f"Type {label} to wipe that token, with all key pairs on it", err=True)
    if typed != label:
        raise UsageError(f"{typed!r} is not the label of the token to be wiped; look again.")
