"""What stands between a process and its PostgreSQL server, and measures what that sends."""

import selectors
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

_SOCKET = ".s.PGSQL.5432"
_MUCH = 1 << 20


@dataclass
class Measured:
    """The most bytes that the server had to send before it was asked for more."""

    most: int = 0


@contextmanager
def measured(place, directory):
    """Give a database's place as it is through this, and what is measured."""
    found, ends = Measured(), []
    target = Path(place.url.query["host"]) / _SOCKET
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / _SOCKET))
        listening.listen()
        accepting = threading.Thread(target=_accept, args=(listening, target, found, ends))
        accepting.start()
        try:
            url = place.url.update_query_dict({"host": str(directory)})
            yield replace(place, url=url), found
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in ends:
                thread.join()


def _accept(listening, target, found, ends):
    with suppress(OSError):
        while True:
            client, _ = listening.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(target))
            ends.append(threading.Thread(target=_pass_on, args=(client, server, found)))
            ends[-1].start()


def _pass_on(client, server, found):
    """Pass on what either says; a turn of the server's is what it says in a row."""
    with client, server, selectors.DefaultSelector() as waiting:
        waiting.register(client, selectors.EVENT_READ, server)
        waiting.register(server, selectors.EVENT_READ, client)
        turn = 0
        while True:
            for key, _ in waiting.select():
                said = key.fileobj.recv(_MUCH)
                if not said:
                    return
                turn = turn + len(said) if key.fileobj is server else 0
                found.most = max(found.most, turn)
                key.data.sendall(said)
