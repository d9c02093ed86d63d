"""A file server over HTTP: `python file_server.py ADDRESS PORT DIRECTORY`.

A threading server of the plain kind: http.server's own looks up its host name,
which hangs where there is no name server.
"""

import socket
import socketserver
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler


class FileServer(socketserver.ThreadingTCPServer):
    """Serves each request in a thread of its own."""

    allow_reuse_address = True
    daemon_threads = True


def serve(address: str, port: int, directory: str) -> None:
    """Serve the files of a directory until killed."""
    handler = partial(SimpleHTTPRequestHandler, directory=directory)
    if ":" in address:
        FileServer.address_family = socket.AF_INET6
    with FileServer((address, port), handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
