"""How an office comes into a guest: set up outside, packed, and started inside."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from lab.capture import Capture
from lab.charon import Lane, choose_lane
from lab.guest import OUT
from lab.network import ROUTED
from lab.template import Template, in_use
from lab.world import World
from tests.guest.bridge import prepared
from tests.guest.offices import OpenOffice
from tests.guest.traffic import serving

LOADED = (
    *("token_client.background", "token_client.booklet", "token_client.cli"),
    *("token_client.commands.agent", "token_client.commands.connect"),
    *("token_client.connect", "token_client.entry", "token_client.exchange"),
    *("token_client.opening", "token_client.options", "token_client.preflight"),
    *("token_client.status", "token_client.steps", "target_agent.cli", "target_agent.entry"),
    *("target_agent.server", "target_agent.service", "carnet.pin", "carnet.ipsec.strongswan"),
    *("smartcard.System", "_strptime", "pkgutil"),
    *("sqlalchemy.dialects.sqlite.pysqlite", "cryptography.hazmat.backends.openssl.backend"),
)
"""What the commands load, ours too: for the guest that is long. No more than they load, for
it copies slowly."""

PACKED = "office"
PAIRS = 30
"""What test_connect takes."""


def prepare_office(directory: Path, pairs: int) -> None:
    """Outside: do once all that people do before the first connection."""
    with World() as world:
        office = OpenOffice(world, choose_lane())
        office.set_up(pairs)
        office.pack(directory / PACKED)


def share_office(directory: Path, shared: Path | None) -> None:
    """Outside: the same once for all boots of a run, with as many pairs as any of them takes."""
    if shared is None:
        prepare_office(directory, PAIRS)
        return
    shared.mkdir(parents=True, exist_ok=True)
    with FileLock(shared / "lock"):
        if not (shared / PACKED).exists():
            with TemporaryDirectory(dir=shared) as begun:
                prepare_office(Path(begun), PAIRS)
                (Path(begun) / PACKED).rename(shared / PACKED)
    shutil.copytree(shared / PACKED, directory / PACKED, symlinks=True)


@contextmanager
def open_office(lane: Lane, file: str) -> Iterator[OpenOffice]:
    """Give the office that a test file has prepared, with a capture."""
    made = unwatched_office(lane, prepared(file))
    with made as office, Capture(office.world.router) as office.capture:
        yield office


@cache
def _template() -> Template:
    """Return the one of this boot, which ends with the guest: it takes long to load."""
    return Template(LOADED)


@contextmanager
def unwatched_office(lane: Lane, place: Path = OUT) -> Iterator[OpenOffice]:
    """Give an office without a capture, for more traffic than one can follow."""
    with (
        World(ROUTED) as world,
        in_use(_template()),
        serving(world.server, world.target),
    ):
        office = OpenOffice(world, lane)
        office.unpack(place / PACKED)
        office.start()
        yield office
