"""Where `carnet-provision` begins."""

from carnet.entry import enter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Run the command."""
    enter("provisioning.cli", "carnet-provision")
