"""A flood of requests, as `python -m tests.lab.flooder URL COUNT SECONDS ADDRESS...`.

The bodies stand on standard input, one a line in hexadecimal. Each address sends them
in turn, one after the other, until all together have sent COUNT or the time is up: it
ends by itself. Prints how many of each status came back, and says when it has begun.
"""

import http.client
import json
import sys
import threading
import time
from collections import Counter
from itertools import cycle
from urllib.parse import urlsplit


class Flood:
    def __init__(self, url, count, seconds, bodies):
        self._url = urlsplit(url)
        self._left = count
        self._deadline = time.monotonic() + seconds
        self._bodies = bodies
        self._lock = threading.Lock()
        self.statuses = Counter()

    def send_from(self, address):
        for body in cycle(self._bodies):
            with self._lock:
                self._left -= 1
                if self._left < 0 or time.monotonic() > self._deadline:
                    return
            status = self._post(body, address)
            with self._lock:
                self.statuses[status] += 1
                if self.statuses[429] == 1 and status == 429:
                    print("over the limit", flush=True)  # noqa: T201

    def _post(self, body, address):
        connection = http.client.HTTPConnection(
            self._url.hostname, self._url.port, timeout=10, source_address=(address, 0)
        )
        try:
            connection.request("POST", "/v1/requests", body)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


def main(url, count, seconds, *addresses):
    bodies = [bytes.fromhex(line) for line in sys.stdin.read().split()]
    flood = Flood(url, int(count), float(seconds), bodies)
    threads = [threading.Thread(target=flood.send_from, args=(each,)) for each in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(flood.statuses), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
