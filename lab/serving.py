"""Files served over HTTP on a machine, by threads of this process: no program has to start."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from socket import AF_INET, AF_INET6
from threading import Thread

from lab.file_server import FileServer
from lab.machine import Machine

PORT = 80


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing: it would be in the middle of what the test prints."""


class _Server(FileServer):
    def __init__(self, machine: Machine, address: str) -> None:
        self.address_family = AF_INET6 if ":" in address else AF_INET
        super().__init__((address, PORT), partial(_Silent, directory=str(machine.directory)))


@contextmanager
def served(machine: Machine, address: str) -> Iterator[None]:
    """Have what is in a machine's directory fetched at its address; `::` is IPv4 too."""
    with machine.network():
        server = _Server(machine, address)
    with server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
