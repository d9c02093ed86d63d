"""The command `carnet-provision`: the security officer's station."""

from typing import NoReturn

import click

from carnet.console import run_command
from provisioning.adopt_command import adopt_command
from provisioning.certificates import certificates, init
from provisioning.mint_command import mint_command
from provisioning.pins import change_pin, unblock
from provisioning.sheet_command import sheet
from provisioning.telling import revoke, send
from provisioning.tokens import burn, list_pairs, token_init

_NAME = "carnet-provision"


@click.group()
@click.version_option(package_name="carnet", prog_name=_NAME)
def cli() -> None:
    """Initialise tokens, mint one-time key pairs, certify Hosts and Targets.

    Secrets are read from a file descriptor or a file, else from CARNET_PIN, CARNET_SO_PIN,
    CARNET_NEW_PIN and CARNET_OFFICER_PASSPHRASE, else asked for.
    """


for _command in (
    init,
    certificates,
    token_init,
    mint_command,
    adopt_command,
    list_pairs,
    sheet,
    burn,
    send,
    revoke,
    change_pin,
    unblock,
):
    cli.add_command(_command)


def main() -> NoReturn:
    """Run the command."""
    run_command(cli, _NAME)
