"""One of several processes on one token: `python -m bench.token_process SERIAL WHICH OF COUNT`.

It finds its share of the pairs there, says that it is ready, waits for a line, does a
request's token operations with each of them, and says so.
"""

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from pkcs11 import Attribute, ObjectClass

from bench.bare_token import bare_pair, bare_request, module_with_tokens_in
from carnet.token.initialise import initialise_token
from carnet.token.module import find_module, load_module
from carnet.token.session import open_session
from tests.host.real_host import PIN, SO_PIN


def rate(directory: Path, processes: int, count: int) -> float:
    """Return how many requests' operations a second so many processes do on one new token."""
    module = module_with_tokens_in(directory)
    serial = initialise_token(module, label="bare", so_pin=SO_PIN, pin=PIN)
    with open_session(module.choose(serial), PIN, writable=True) as session:
        for number in range(count):
            for half in bare_pair(session):
                half[Attribute.ID] = number.to_bytes(2)
    own = [sys.executable, "-m", "bench.token_process", serial]
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    [*own, str(which), str(processes), str(count)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                )
            )
            for which in range(processes)
        ]
        _hear(started)
        begun = time.perf_counter()
        for each in started:
            if each.stdin is not None:
                each.stdin.write(b"\n")
        _hear(started)
        return count / (time.perf_counter() - begun)


def _hear(processes: "list[subprocess.Popen[bytes]]") -> None:
    for each in processes:
        if each.stdout is None or not each.stdout.readline():
            raise RuntimeError("A process on the token ended early.")


def main(serial: str, which: int, processes: int, count: int) -> None:
    """Be one of them."""
    module = load_module(find_module(None))
    with open_session(module.choose(serial), PIN, writable=True) as session:
        pairs = [
            tuple(
                session.find(each, {Attribute.ID: number.to_bytes(2)})[0]
                for each in (ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY)
            )
            for number in range(which, count, processes)
        ]
        print("ready", flush=True)  # noqa: T201
        sys.stdin.readline()
        for public, private in pairs:
            bare_request(public, private)
        print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
