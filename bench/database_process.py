"""One of several processes on one Key Database: `python -m bench.database_process COUNT PLACE …`.

It brings pairs of its own, and does with each what a request does there: looked up, spent,
answered, burned. No token, no Client and no Target has a part in it.
"""

import os
from pathlib import Path

import click

from bench import abreast
from bench.host_process import Where, takes_place
from carnet.wire.envelope import Envelope, SignedRequest
from host_agent.keydb import KeyDatabase
from tests.host.conftest import new_pair, sealed_request
from tests.unit.examples import SoftwareKey

_ON_A_TOKEN = 50
_ANSWER = bytes(300)
"""About as long as one is."""


def rate(where: Where, processes: int, count: int) -> float:
    """Return how many requests a second so many processes get through a Key Database, warm."""
    with KeyDatabase.opened(where.place):
        """Made before they all open it."""
    share = [str(abreast.WARM_UP + count // processes), *where.arguments]
    return count / abreast.seconds("bench.database_process", [share] * processes)


@click.command()
@click.argument("count", type=int)
@takes_place
def main(count: int, directory: Path, url: str | None, password_file: Path | None) -> None:
    """Be one of them."""
    where = Where(directory, url, password_file)
    keys = [SoftwareKey() for _ in range(count)]
    with KeyDatabase.opened(where.place) as database:
        database.add_pairs(
            new_pair(key, token_serial=f"{os.getpid()}-{number // _ON_A_TOKEN}")
            for number, key in enumerate(keys)
        )
        requests = [sealed_request(key) for key in keys]

        abreast.take_part(lambda request: _one(database, *request), requests)


def _one(database: KeyDatabase, envelope: Envelope, signed: SignedRequest) -> None:
    pair, _ = database.look_up(envelope.key_id)
    if pair is None or not database.spend(envelope, signed):
        raise RuntimeError("A new pair was not spent.")
    database.invalid_pairs(pair)
    database.store_response(envelope.key_id, "granted", _ANSWER)
    database.record_destroyed(envelope.key_id)


if __name__ == "__main__":
    main()
