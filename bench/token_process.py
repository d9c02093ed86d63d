"""One of several processes on one token: `python -m bench.token_process SERIAL WHICH OF COUNT`.

It finds its share of the pairs there, and does a request's token operations with each.
"""

import sys
from pathlib import Path

from pkcs11 import Attribute, ObjectClass

from bench import abreast
from bench.bare_token import bare_pair, bare_request, module_with_tokens_in
from carnet.token.finding import find_module
from carnet.token.initialise import initialise_token
from carnet.token.module import load_module
from carnet.token.session import open_session
from tests.host.real_host import PIN, SO_PIN


def seconds(directory: Path, processes: int, count: int) -> float:
    """Return how long so many processes take for the operations of `count` requests.

    They share one new token, and are warm.
    """
    module = module_with_tokens_in(directory)
    serial = initialise_token(module, label="bare", so_pin=SO_PIN, pin=PIN)
    with open_session(module.choose(serial), PIN, writable=True) as session:
        of_all = count + processes * abreast.WARM_UP
        for number in range(of_all):
            for half in bare_pair(session):
                half[Attribute.ID] = number.to_bytes(2)
    shares = [[serial, str(which), str(processes), str(of_all)] for which in range(processes)]
    return abreast.seconds("bench.token_process", shares)


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

        abreast.take_part(lambda pair: bare_request(*pair), pairs)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
