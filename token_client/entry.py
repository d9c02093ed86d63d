"""Where `carnet` begins."""

from typing import NoReturn

from carnet.entry import enter


def main() -> NoReturn:
    """Run the command."""
    enter("token_client.cli", "carnet")
