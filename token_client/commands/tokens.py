"""`carnet tokens`."""

from pathlib import Path

import click

from carnet import console
from token_client import config as configuration
from token_client.commands.shared import json_option, reach_options, tell
from token_client.tokens import describe, facts, list_tokens


@click.command()
@reach_options
@json_option
def tokens(cover: Path | None, officer: Path | None, module: str | None, as_json: bool) -> None:
    """List the tokens that are plugged in, as far as they tell without a PIN."""
    config = configuration.load(cover=cover, officer=officer, module=module)
    found = list_tokens(config, tell)
    if as_json:
        console.print_json([facts(token) for token in found])
    elif not found:
        click.echo("No token is seen; `carnet doctor` tells more.")
    for token in () if as_json else found:
        click.echo(describe(token))
