"""Asking before something is destroyed."""

import sys

import click

from carnet.errors import UsageError


def confirm(question: str, *, yes: bool) -> None:
    """Ask; click.Abort on a no, UsageError where there is nobody to ask and no `--yes`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to answer at; confirm with --yes.")
    click.confirm(question, abort=True, err=True)


def confirm_by_label(label: str, typed: str | None) -> None:
    """Have the label of the token that is to be wiped typed; UsageError if it is another."""
    if typed is None:
        if not sys.stdin.isatty():
            raise UsageError("There is no terminal to confirm at; confirm with --confirm LABEL.")
        typed = click.prompt(f"Type {label} to wipe that token, with all key pairs on it", err=True)
    if typed != label:
        raise UsageError(f"{typed!r} is not the label of the token to be wiped; look again.")
