"""Where carnet-helper is, for an ordinary user."""

import os
from pathlib import Path

DEFAULT_SOCKET = Path("/run/carnet-helper/socket")


def find_helper(named: Path | None) -> Path | None:
    """Return the helper's socket where it is to be used: the one named, or by whom root is not."""
    if named is not None:
        return named
    # Windows has no helper, and no user ids.
    is_ordinary = hasattr(os, "geteuid") and os.geteuid()
    there = is_ordinary and os.access(DEFAULT_SOCKET, os.F_OK)
    return DEFAULT_SOCKET if there else None
