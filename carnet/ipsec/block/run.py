"""Running a packet filter's own program."""

from collections.abc import Sequence

from carnet.errors import IPsecError
from carnet.ipsec import programs


def answers(argv: Sequence[str], rules: str = "") -> str | None:
    """Return what a program prints; None if it is missing or fails. Raises IPsecError."""
    try:
        done = programs.run(argv, rules)
    except OSError:
        return None
    return None if done.returncode else done.stdout


def tell(argv: Sequence[str], rules: str = "") -> None:
    """Give a program its rules; raises IPsecError if it does not take them all."""
    try:
        done = programs.run(argv, rules)
    except OSError as error:
        raise IPsecError(
            f"The program {argv[0]} cannot be run ({error.strerror}); install it."
        ) from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise IPsecError(
            f"{argv[0]} does not take the rules of the block against packets in clear"
            f" ({said[0] if said else 'no reason'}); run this as root."
        )
