"""Unix sockets that only their owner opens."""

import os
import socket
from pathlib import Path

from carnet.errors import UsageError
from carnet.files import private_directory


def bind_private(path: Path) -> socket.socket:
    """Bind a socket of mode 0600; nobody can connect before it has that mode and listens.

    One that is there already is replaced: it must be the caller's to replace. Raises
    UsageError if there can be no socket there.
    """
    bound = socket.socket(socket.AF_UNIX)
    try:
        private_directory(path.parent)
        path.unlink(missing_ok=True)
        _bind(bound, path)
        path.chmod(0o600)
    except OSError as error:
        bound.close()
        raise UsageError(
            f"Cannot make the socket {path}: {error.strerror or error};"
            " name another directory in the configuration."
        ) from error
    return bound


def _bind(unbound: socket.socket, path: Path) -> None:
    """Bind it there, however long the path is: an address has 107 bytes (unix(7))."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        unbound.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
