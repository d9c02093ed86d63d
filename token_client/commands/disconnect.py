"""`carnet disconnect`."""

from functools import partial

import click

from carnet import console
from token_client import background
from token_client import config as configuration
from token_client.commands.drivers import drivers
from token_client.commands.shared import json_option, tell
from token_client.long_wait import said_if_long
from token_client.status import end, release_by_hand


@click.command()
@click.argument("tunnel", required=False)
@click.option(
    "--release",
    is_flag=True,
    help="Lift the block against packets in clear, also where the IPsec daemon does not answer.",
)
@json_option
def disconnect(tunnel: str | None, release: bool, as_json: bool) -> None:
    """End TUNNEL (a name or a Target), or all tunnels."""
    if release:
        config = configuration.load()
        leave = partial(background.leave_to_agent, config=config)
        with said_if_long(tell):
            released = release_by_hand(drivers(config), tunnel, tell, leave)
        if as_json:
            console.print_json(released)
        else:
            click.echo(
                f"Released {', '.join(released)}: packets leave as they would without a tunnel."
                if released
                else "There was nothing to release."
            )
        return
    with said_if_long(tell):
        ended = end(drivers(configuration.load()), tunnel, tell)
    if as_json:
        console.print_json([state.name for state in ended])
    else:
        names = ", ".join(state.label for state in ended)
        click.echo(f"Ended the tunnel to {names}." if ended else "There was no tunnel to end.")
