"""A service manager, as far as a service can tell: it hears what sd_notify(3) sends."""

import contextlib
import socket
import threading
from queue import SimpleQueue


class Heard:
    """What comes to a notify socket, read as it comes."""

    def __init__(self, path):
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self._heard = SimpleQueue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self):
        while datagram := self._socket.recv(4096):
            for assignment in datagram.decode().splitlines():
                self._heard.put(assignment)

    def until(self, assignment):
        """Return all that is heard until the assignment is, that one included."""
        heard = []
        while assignment not in heard:
            heard.append(self._heard.get(timeout=60))
        return heard

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


@contextlib.contextmanager
def manager(directory):
    heard = Heard(directory / "notify.sock")
    try:
        yield heard
    finally:
        heard.close()
