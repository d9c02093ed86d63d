"""What Target's door says to whom: `python -m lab.tls_look ADDRESS PORT NAME DIRECTORY`.

The directory is a Host's, with its certificate, its key and the officer's certificate.
Printed is, as JSON, what came of TLS with them and without, and of an older version.
"""

import json
import socket
import ssl
import sys
from pathlib import Path

from lab.machine import Machine

WITH, WITHOUT, OLDER = (
    "TLS 1.3, with the Host's certificate",
    "TLS 1.3, without a certificate",
    "TLS 1.2, with the Host's certificate",
)
HANGS_UP = "it hangs up"
_SECONDS = 5


def look(machine: Machine, address: str, port: int, name: str, directory: Path) -> dict[str, str]:
    """Knock from a machine; return how the door answered each time."""
    argv = ["python", "-m", "lab.tls_look", address, str(port), name, str(directory)]
    said: dict[str, str] = json.loads(machine.run(argv).stdout)
    return said


def main(address: str, port: int, name: str, directory: Path) -> dict[str, str]:
    """Knock from here; the door's own certificate is verified each time."""
    tries = {
        WITH: (ssl.TLSVersion.TLSv1_3, True),
        WITHOUT: (ssl.TLSVersion.TLSv1_3, False),
        OLDER: (ssl.TLSVersion.TLSv1_2, True),
    }
    return {
        what: _knock((address, port), name, _context(directory, version, shown=shown))
        for what, (version, shown) in tries.items()
    }


def _context(directory: Path, version: ssl.TLSVersion, *, shown: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=directory / "officer.crt")
    context.minimum_version = context.maximum_version = version
    if shown:
        context.load_cert_chain(directory / "link.crt", directory / "link.key")
    return context


def _knock(address: tuple[str, int], name: str, context: ssl.SSLContext) -> str:
    try:
        with (
            socket.create_connection(address, _SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=name) as secured,
        ):
            # In TLS 1.3 the client is done before the server has looked at its certificate.
            secured.sendall(b"GET / HTTP/1.1\r\nHost: target\r\nConnection: close\r\n\r\n")
            line = secured.recv(64).split(b"\r\n")[0].decode("ascii", "replace")
    except (ssl.SSLCertVerificationError, TimeoutError) as error:
        return str(error)
    except OSError:
        return HANGS_UP
    return line or HANGS_UP


if __name__ == "__main__":
    _, _address, _port, _name, _directory = sys.argv
    print(json.dumps(main(_address, int(_port), _name, Path(_directory))))
