"""What several commands of `carnet` take, and how they speak meanwhile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(dir_okay=False, path_type=Path)
token_option = click.option("--token", help="Which token, by label or serial number.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")


def reach_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the module of a token, and the files of one that stores no cover."""
    officer = click.option("--officer", type=_FILE, help="The security officer's certificate.")
    cover = click.option("--cover", type=_FILE, help="The cover of a token that stores none.")
    module = click.option(
        "--module",
        metavar="PATH",
        help="The token's PKCS#11 module  [default: CARNET_PKCS11_MODULE, else SoftHSM2].",
    )
    return cover(officer(module(command)))


def tell(sentence: str) -> None:
    """Say what happens meanwhile; standard output is for the result."""
    click.echo(sentence, err=True)
