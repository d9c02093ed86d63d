"""The lab's world with strongSwan on Client and Target, made once for a test module."""

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import pytest
from vici import Session

from carnet.ipsec.spec import TunnelSpec
from carnet.ipsec.strongswan import StrongSwan
from carnet.ipsec.strongswan_parts import is_ours
from carnet.ipsec.vici_link import open_session, text
from lab.charon import Charon, Lane, choose_lane
from lab.machine import Machine
from lab.network import SERVER_ADDRESS, TARGET_ADDRESS, WORK_NETWORK
from lab.serving import served
from lab.world import World
from tests.unit.tunnels import CLIENT, target_of


@pytest.fixture(scope="session")
def lane() -> Lane:
    return choose_lane()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as made:
        yield made


@dataclass(frozen=True)
class Gateway:
    """A machine's daemon and the driver that speaks to it."""

    machine: Machine
    charon: Charon
    driver: StrongSwan

    def left(self) -> list[str]:
        """Names of whatever of ours the daemon holds, of any kind."""
        with self.session() as session:
            names = [name for sa in session.list_sas() for name in sa]
            names += [name for connection in session.list_conns() for name in connection]
            names += session.get_pools()
            names += text(session.get_shared())["keys"]
        return [name for name in names if is_ours(name)]

    def session(self) -> AbstractContextManager[Session]:
        return open_session(self.charon.vici)


def started(machine: Machine, lane: Lane) -> Gateway:
    charon = Charon(machine, lane)
    charon.start()
    return Gateway(machine, charon, StrongSwan(charon.vici))


@pytest.fixture(scope="module")
def charons(world: World, lane: Lane) -> tuple[Gateway, Gateway]:
    return started(world.client, lane), started(world.target, lane)


@pytest.fixture
def client(charons: tuple[Gateway, Gateway]) -> Iterator[Gateway]:
    yield charons[0]
    charons[0].driver.sweep(frozenset)


@pytest.fixture
def target(charons: tuple[Gateway, Gateway]) -> Iterator[Gateway]:
    yield charons[1]
    charons[1].driver.sweep(frozenset)


@dataclass(frozen=True)
class Ends:
    """The two ends' view of one tunnel."""

    client: TunnelSpec
    target: TunnelSpec

    @property
    def name(self) -> str:
        return self.client.name


def two_ends(*, ppk: bool = False, virtual_address: str = "10.99.0.7") -> Ends:
    """Make both ends of a tunnel with fresh keys and identities, as agreed for one session."""
    session = secrets.token_hex(8)
    client = replace(
        CLIENT,
        name=f"carnet-{session}",
        remote_addresses=(TARGET_ADDRESS,),
        local_identity=f"client-{session}",
        remote_identity=f"target-{session}",
        remote_networks=(WORK_NETWORK,),
        virtual_address=virtual_address,
        psk=secrets.token_bytes(32),
        ppk=secrets.token_bytes(32) if ppk else None,
        ppk_id=f"ppk-{session}" if ppk else None,
    )
    return Ends(client, target_of(client))


@pytest.fixture(scope="module")
def work_file(world: World) -> Iterator[str]:
    """What the server behind Target has to offer, by its URL; its content is its name."""
    (world.server.directory / "plan.txt").write_text("the plan of the work network\n")
    with served(world.server, SERVER_ADDRESS):
        yield f"http://{SERVER_ADDRESS}/plan.txt"
