"""Whether a Host process serves on this machine, for commands that leave something to it."""

import socket
from contextlib import suppress

from host_agent.config import HostConfig

_SECONDS = 2.0
"""In which the kernel of this machine says whether anybody listens."""


def is_served(config: HostConfig) -> bool:
    """Tell whether anybody listens where this configuration's process would."""
    with suppress(OSError):
        socket.create_connection((config.listen, config.port), _SECONDS).close()
        return True
    return False


def unattended(config: HostConfig) -> str:
    """Say that tunnels which were revoked live on for now, and what to do."""
    return (
        f"No carnet-host serves at {config.listen} port {config.port} now: unless one does "
        f"elsewhere, the tunnels live on until it is started (systemctl start carnet-host)."
    )
