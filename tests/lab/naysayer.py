"""Somebody on the way who says 403 to everything: `python -m ... ADDRESS PORT`."""

import sys
from http.server import BaseHTTPRequestHandler

from lab.file_server import FileServer


class Naysayer(BaseHTTPRequestHandler):
    """Answers as the Host answers strangers."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response_only(403)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    with FileServer((sys.argv[1], int(sys.argv[2])), Naysayer) as server:
        server.serve_forever()
