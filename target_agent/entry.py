"""Where `carnet-target` begins."""

from typing import NoReturn

from carnet.entry import enter


def main() -> NoReturn:
    """Run the command."""
    enter("target_agent.cli", "carnet-target")
