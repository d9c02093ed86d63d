"""A Host in a process of its own: `python -m bench.host_process serve|fill DIRECTORY …`.

`fill` puts pairs on the token and into the Key Database, and prints the private keys of
those as PEM in JSON; `serve` serves them, prints its port, and ends when standard input
does. No Target is there: Host refuses each request itself, which takes it through every
step of its own, the burn included.
"""

import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from bench.child import child, say
from carnet.database.place import FilePlace, Place, PostgresPlace
from carnet.service import start_log
from carnet.token.finding import find_module
from carnet.token.module import load_module
from host_agent.keydb import KeyDatabase, NewPair
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.host.real_host import RealHost
from tests.unit.examples import SoftwareKey

F = TypeVar("F", bound=Callable[..., Any])
_ITSELF = "bench.host_process"


class Served(NamedTuple):
    """A Host that serves."""

    port: int
    thread_times: Callable[[], dict[str, float]]
    """Asks for the milliseconds that its threads ran for so far, by name."""


@dataclass(frozen=True)
class Where:
    """A Host's token and its Key Database."""

    directory: Path
    """Of the token, the log, and the database where that is a file."""
    url: str | None = None
    """Of a PostgreSQL database."""
    password_file: Path | None = None

    @property
    def arguments(self) -> list[str]:
        """What tells a process of it."""
        server = [] if self.url is None else ["--url", self.url]
        password = [] if self.password_file is None else ["--password-file", self.password_file]
        return list(map(str, [self.directory, *server, *password]))

    @property
    def place(self) -> Place:
        """Where the database is."""
        if self.url is None:
            return FilePlace(self.directory / "keys.sqlite")
        return replace(PostgresPlace.parse(self.url), password_file=self.password_file)

    @property
    def log(self) -> Path:
        """What its processes say."""
        return self.directory / "host.log"


def filled(where: Where, on_token: int, others: int = 0) -> list[SoftwareKey]:
    """Have so many pairs on the token and in the database, and others there alone."""
    arguments = [*where.arguments, "--on-token", str(on_token), "--others", str(others)]
    with child(_ITSELF, "fill", *arguments, log=where.log) as (texts, _):
        return [SoftwareKey(key=load_pem_private_key(text.encode(), None)) for text in texts]


@contextmanager
def serving(where: Where) -> Iterator[Served]:
    """Have a process serve them."""
    with child(_ITSELF, "serve", *where.arguments, log=where.log) as (port, ask):
        yield Served(port, ask)


@click.group()
def main() -> None:
    """Serve, or fill, a Host for measuring."""


def takes_place(command: F) -> F:
    """Have a command take what Where.arguments has."""
    for each in (
        click.option("--password-file", type=click.Path(path_type=Path)),
        click.option("--url"),
        click.argument("directory", type=click.Path(path_type=Path)),
    ):
        command = each(command)
    return command


@main.command()
@takes_place
@click.option("--on-token", default=0)
@click.option("--others", default=0)
def fill(
    directory: Path, url: str | None, password_file: Path | None, on_token: int, others: int
) -> None:
    """Make the pairs."""
    where = Where(directory, url, password_file)
    host = _host(where)
    keys = [SoftwareKey() for _ in range(on_token)]
    host.add_pairs(*keys)
    with KeyDatabase.opened(where.place) as database:
        database.add_pairs(_strangers(others))
    say([_pem(key) for key in keys])


@main.command()
@takes_place
def serve(directory: Path, url: str | None, password_file: Path | None) -> None:
    """Serve until standard input ends; at each line of it say what the threads took."""
    start_log()
    with _host(Where(directory, url, password_file)) as host:
        say(host.port)
        for _ in sys.stdin:
            say(_thread_times())


def _thread_times() -> dict[str, float]:
    """Return for how many milliseconds each thread ran since it was started."""
    times = {}
    for each in threading.enumerate():
        # One that begins or ends just now has none.
        with suppress(OSError):
            told = Path(f"/proc/self/task/{each.native_id}/schedstat").read_text()
            times[each.name] = int(told.split()[0]) / 1e6
    return times


def _host(where: Where) -> RealHost:
    os.environ[CONFIGURATION_VARIABLE] = str(prepare(where.directory / "softhsm"))
    return RealHost(
        where.directory, load_module(find_module(None)), place=where.place, counted=False
    )


def _strangers(count: int) -> Iterable[NewPair]:
    """Make up rows of pairs that nobody uses; the database does not look at their keys."""
    fields: Mapping[str, Any] = {"custody": "paired", "suite": 1, "not_after": None}
    for number in range(count):
        whose, of_batch = divmod(number, 50)
        yield NewPair(
            key_id=secrets.token_bytes(16),
            user_id=f"user{whose}@office",
            token_serial=f"{whose:016}",
            batch_id=whose.to_bytes(16),
            label=f"carnet 20261123T000000Z {of_batch:04}",
            public_key=secrets.token_bytes(91),
            **fields,
        )


def _pem(key: SoftwareKey) -> str:
    octets: bytes = key.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return octets.decode()


if __name__ == "__main__":
    main()
