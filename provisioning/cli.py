"""The command `carnet-provision`: the security officer's station."""

from typing import NoReturn

import click

from carnet import VERSION, interruption
from carnet.lazy import LazyGroup
from carnet.running import run_command

_NAME = "carnet-provision"


@click.group(
    cls=LazyGroup,
    lazy={
        "init": "provisioning.certificates:init",
        "certificates": "provisioning.certificates:certificates",
        "token-init": "provisioning.tokens:token_init",
        "mint": "provisioning.mint_command:mint_command",
        "adopt": "provisioning.adopt_command:adopt_command",
        "list": "provisioning.list_command:list_pairs",
        "sheet": "provisioning.sheet_command:sheet",
        "burn": "provisioning.burn_command:burn",
        "send": "provisioning.telling:send",
        "revoke": "provisioning.telling:revoke",
        "change-pin": "provisioning.pins:change_pin",
        "unblock": "provisioning.pins:unblock",
    },
)
@click.version_option(VERSION, prog_name=_NAME)
def cli() -> None:
    """Initialise tokens, mint one-time key pairs, certify Hosts and Targets.

    Secrets are read from a file descriptor or a file, else from CARNET_PIN, CARNET_SO_PIN,
    CARNET_NEW_PIN and CARNET_OFFICER_PASSPHRASE, else asked for.
    """
    interruption.listen()


def main() -> NoReturn:
    """Run the command."""
    run_command(cli, _NAME)
