"""Where `carnet-provision` begins."""

from typing import NoReturn

from carnet.entry import enter


def main() -> NoReturn:
    """Run the command."""
    enter("provisioning.cli", "carnet-provision")
