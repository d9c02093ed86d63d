"""Somebody on the way who answers in the Host's place: `python -m ... HOW ADDRESS PORT`."""

import sys
import threading
from http.server import BaseHTTPRequestHandler

from lab.file_server import FileServer

DRIP_SECONDS = 0.2


class Impostor(BaseHTTPRequestHandler):
    """Answers every request in the same way."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        HOW[sys.argv[1]](self)


def refuse(handler):
    """As the Host answers strangers."""
    handler.send_response_only(403)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def babble(handler):
    """A body that is nothing, and a word about steps that nobody took."""
    handler.send_response_only(200)
    handler.send_header("Server-Timing", "step2;dur=1, step3;dur=1, target;dur=5, step7;dur=1")
    handler.send_header("Content-Length", "4")
    handler.end_headers()
    handler.wfile.write(b"what")


def drip(handler):
    """A byte at a time, until the other side has enough of it."""
    handler.send_response_only(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    never = threading.Event()
    while not never.wait(DRIP_SECONDS):
        handler.wfile.write(b".")


HOW = {"refuse": refuse, "babble": babble, "drip": drip}

if __name__ == "__main__":
    with FileServer((sys.argv[2], int(sys.argv[3])), Impostor) as server:
        server.serve_forever()
