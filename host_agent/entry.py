"""Where `carnet-host` begins."""

from typing import NoReturn

from carnet.entry import enter


def main() -> NoReturn:
    """Run the command."""
    enter("host_agent.cli", "carnet-host")
