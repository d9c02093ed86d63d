"""Where `carnet-helper` begins."""

from typing import NoReturn

from carnet.entry import enter


def main() -> NoReturn:
    """Run the command."""
    enter("helper_agent.cli", "carnet-helper")
