"""One HTTP request from a machine of the lab: `python -m lab.http_client METHOD URL`.

The body comes from standard input; what came back is printed as JSON, or why nothing did.
"""

import base64
import json
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass

from lab.machine import Machine

_SECONDS = 5


@dataclass(frozen=True)
class Answer:
    """What came back; `status` 0 and the reason in `error` where nothing did."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    error: str = ""


def request(machine: Machine, method: str, url: str, body: bytes = b"") -> Answer:
    """Make a request from a machine."""
    done = machine.run(
        ["python", "-m", "lab.http_client", method, url], stdin=base64.b64encode(body).decode()
    )
    said = json.loads(done.stdout)
    headers = tuple((name, value) for name, value in said["headers"])
    return Answer(said["status"], headers, base64.b64decode(said["body"]), said["error"])


def main(method: str, url: str) -> dict[str, object]:
    """Make the request from here."""
    body = base64.b64decode(sys.stdin.read())
    asked = urllib.request.Request(url, data=body or None, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=_SECONDS) as response:  # noqa: S310
            return _facts(response.status, response.getheaders(), response.read())
    except urllib.error.HTTPError as refused:
        return _facts(refused.code, list(refused.headers.items()), refused.read())
    except OSError as error:
        return _facts(0, [], b"", str(getattr(error, "reason", error)))


def _facts(
    status: int, headers: list[tuple[str, str]], body: bytes, error: str = ""
) -> dict[str, object]:
    encoded = base64.b64encode(body).decode()
    return {"status": status, "headers": headers, "body": encoded, "error": error}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2])))
