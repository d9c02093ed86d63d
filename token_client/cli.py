"""The traveller's command: `carnet`."""

import click

from carnet import VERSION
from carnet.lazy import LazyGroup
from carnet.running import run_command

_COMMANDS = (
    *("agent", "connect", "disconnect", "doctor"),
    *("objectives", "resume", "status", "tokens"),
)


@click.group(
    cls=LazyGroup,
    lazy={name: f"token_client.commands.{name}:{name}" for name in _COMMANDS},
    help="Carnet: a tunnel into your work network, opened by the token in your hand.",
)
@click.version_option(VERSION)
def cli() -> None:
    """Hold the commands together."""


def main() -> None:
    """Run the command."""
    run_command(cli, "carnet")
