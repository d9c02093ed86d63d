"""`carnet objectives`."""

import click

from carnet import console
from carnet.ipsec.drivers import look_around
from token_client import config as configuration
from token_client.commands.shared import json_option
from token_client.options import describe, facts


@click.command()
@json_option
def objectives(as_json: bool) -> None:
    """Show the paper's Tables 1 to 3, and what this machine can do."""
    found = list(look_around(configuration.load().drivers))
    if as_json:
        console.print_json(facts(found))
    else:
        click.echo("\n".join(describe(found)))
