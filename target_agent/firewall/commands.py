"""Running a packet filter's own program."""

import subprocess
from collections.abc import Sequence

from carnet.errors import IPsecError


def tell(argv: Sequence[str], rules: str) -> None:
    """Give a program its rules; raises IPsecError if it does not take them all."""
    try:
        done = subprocess.run(argv, input=rules, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise IPsecError(f"The program {argv[0]} is missing; install it, or close the gate.") from (
            error
        )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise IPsecError(
            f"{argv[0]} does not take the gate's rules ({said[0] if said else 'no reason'});"
            " run this as root, or name the other firewall in the configuration."
        )


def said(argv: Sequence[str]) -> str:
    """Return what a program prints; nothing if it fails or is missing."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout
