"""Being root, or root of a user namespace: what the lab's machines need.

As a command: `python -m lab.privilege COMMAND…` runs the command as root of a new
user namespace where one is not root, and as it is where one is.
"""

import os
import sys

from carnet.entry import INTERRUPTED
from lab.errors import LabError

_WAYS_TO_ROOT = (
    ("unshare", "--user", "--map-root-user", "--map-auto"),
    ("unshare", "--user", "--map-root-user"),
)
"""The first also has the user's own range of ids (/etc/subuid), which tcpdump needs."""

_TUN = "/dev/net/tun"


def require_root() -> None:
    """Raise LabError unless this process may make namespaces."""
    if os.geteuid() != 0:
        raise LabError(
            "The lab's network namespaces need root: run it as root,"
            " or through `python -m lab.privilege COMMAND`."
        )


def require_tun() -> None:
    """Raise LabError unless userspace ESP finds the device it needs."""
    try:
        os.close(os.open(_TUN, os.O_RDWR))
    except OSError as error:
        raise LabError(
            f"Userspace ESP needs {_TUN}, which cannot be opened here ({error.strerror}):"
            " load the module tun, or run on a kernel with ESP."
        ) from error


def _way_to_root() -> tuple[str, ...]:
    import subprocess  # noqa: PLC0415  root needs none, and is with the command at once

    for way in _WAYS_TO_ROOT:
        probe = subprocess.run([*way, "--net", "true"], capture_output=True, check=False)
        if probe.returncode == 0:
            return way
    sys.exit("This machine gives user namespaces to root only: run this as root.")


def main(argv: list[str]) -> None:
    """Replace this process by the command, as root or as root of a user namespace.

    An interrupt ends it as it would end the command: nothing was begun.
    """
    if os.geteuid() != 0:
        argv = [*_way_to_root(), "--", *argv]
        print("Not root: the lab runs in a user namespace of its own.", file=sys.stderr)
    os.execvp(argv[0], argv)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
