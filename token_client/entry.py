"""Where `carnet` begins."""

from carnet.entry import enter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Run the command."""
    enter("token_client.cli", "carnet", "token_client.help_text")
