"""Where `carnet-host` begins."""

from carnet.entry import enter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Run the command."""
    enter("host_agent.cli", "carnet-host")
