"""`carnet connect`, a cold process until the tunnel is up, next to what no tunnel does without."""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from bench.comparison import Aim, Row, Spread, in_turn
from bench.peer import peer
from bench.plan import Plan
from bench.rows import pieces
from bench.rows.commands import python
from bench.rows.pieces import account
from carnet.ipsec.spec import Mode, Role, TunnelSpec
from carnet.ipsec.strongswan import StrongSwan
from carnet.objectives import Objective
from carnet.token.module import find_module
from lab.charon import VICI, choose_lane
from lab.network import TARGET_ADDRESS, WORK_NETWORK
from lab.office import HOST_URL, Office, pipes
from lab.world import World
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare

GROUP = "Connecting"
BARE = "carnet-f100f100f100f100"
"""The connection of the floor."""
_STEPS = {
    "1  sign and seal": ("1", "sign"),
    "9  IKE": ("9", "ike"),
    "10  destroy the private key": ("10", "destroy"),
}
"""The steps that the floor has too: their numbers in the paper, and what the floor calls them."""
_OURS = (
    "from carnet.entry import import_light; import_light('token_client.cli'); "
    "import token_client.opening, token_client.background, carnet.ipsec.strongswan"
)
"""As the command has them loaded."""
_BARE = "json, pkcs11, subprocess, urllib.request"
_Sides = Sequence[dict[str, float]]
"""Of each round: milliseconds by step, and of all."""


def rows(plan: Plan) -> Iterator[Row]:
    """Measure whole processes, and the steps that both sides have."""
    rounds = plan.rounds(11)
    with (
        World() as world,
        office_at_work(world, 2 * (rounds + 1)) as office,
        _floor(office, rounds + 1) as bare,
        peer() as alone,
        plan.progress("carnet connect", rounds + 1) as advance,
    ):
        taken = []
        for number in range(rounds + 1):
            figures = _carnet(office), bare(), alone(), account(office)
            if number:
                taken.append(figures)
            advance()
    ours, floor, others, accounts = zip(*taken, strict=True)
    yield from _rows(ours, floor, others)
    yield _imports(plan)
    yield from pieces.rows(accounts, _column(ours, "all"))


def _rows(ours: _Sides, floor: _Sides, others: _Sides) -> Iterator[Row]:
    yield _row("carnet connect, whole process", "the bare operations, whole process",
               Aim("floor and 50 ms", above=50), _column(ours, "all"), _column(floor, "all"),
               f"{_where_it_goes(ours)}; {_where_it_goes(floor, whose='the floor')}")  # fmt: skip
    yield _row("carnet connect, beside strongSwan alone",
               "swanctl: key on a SoftHSM2 token loaded, and initiated",
               Aim("ahead, or the reason", most=1), _column(ours, "all"), _column(others, "all"),
               _where_it_goes(others, whose="strongSwan alone"))  # fmt: skip
    for name, (step, theirs) in _STEPS.items():
        yield _row(f"step {name}", f"{theirs} alone", Aim("to be seen"), _column(ours, step),
                   _column(floor, theirs))  # fmt: skip


def _imports(plan: Plan) -> Row:
    """Compare what both programs import, without the rest of them."""
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": ""}
    rounds = plan.rounds(21)
    ours, floor = in_turn(
        partial(python, _OURS, environment),
        partial(python, f"import {_BARE}", environment),
        rounds,
    )
    return _row("its imports alone", f"python -c 'import {_BARE}'", Aim("to be seen"), ours, floor)


def _row(
    name: str, floor: str, aim: Aim, ours: tuple[float, ...], theirs: tuple[float, ...],
    note: str = "",
) -> Row:  # fmt: skip
    return Row(
        group=GROUP, name=name, floor_name=floor, unit="ms", aim=aim, ours=ours, floor=theirs,
        note=note,
    )  # fmt: skip


def _column(figures: _Sides, name: str) -> tuple[float, ...]:
    return tuple(each[name] for each in figures)


def _where_it_goes(figures: _Sides, whose: str = "ours") -> str:
    """Say the median of each step."""
    steps = [name for name in figures[0] if name != "all"]
    medians = (f"{name} {Spread.of(_column(figures, name)).median:.1f}" for name in steps)
    return f"steps of {whose}, in ms: {', '.join(medians)}"


@contextmanager
def office_at_work(world: World, pairs: int) -> Iterator[Office]:
    """Set an office up, with so many pairs, and have it work."""
    office = Office(world, choose_lane())
    office.set_up(pairs)
    with office.at_work():
        yield office


def _carnet(office: Office) -> dict[str, float]:
    started = time.perf_counter()
    done = office.carnet("connect", "--json")
    taken = 1000 * (time.perf_counter() - started)
    if done.returncode:
        raise RuntimeError(f"carnet connect ended with {done.returncode}: {done.stderr}")
    office.carnet("disconnect")
    return {"all": taken, **json.loads(done.stdout)["steps_ms"]}


@contextmanager
def _floor(office: Office, pairs: int) -> Iterator[Callable[[], dict[str, float]]]:
    """Load the connection at both ends, fill a token of the floor's own; give what connects."""
    with bare_connection(office):
        floor = _Floor(office)
        floor.run("make", str(pairs))
        yield floor.connect


@contextmanager
def bare_connection(office: Office) -> Iterator[None]:
    """Have a connection of strongSwan's alone loaded at both ends."""
    drivers = [StrongSwan(each.vici) for each in (office.client_charon, office.target_charon)]
    for driver, spec in zip(drivers, _ends(), strict=True):
        driver.install(spec)
    try:
        yield
    finally:
        for driver in drivers:
            driver.down(BARE)


class _Floor:
    """The floor's program on the Client, and its token."""

    def __init__(self, office: Office) -> None:
        self._client = office.world.client
        self._pin = secrets.token_hex(4)
        place = self._client.directory / "floor"
        self._environment = {
            CONFIGURATION_VARIABLE: str(prepare(place)),
            "BENCH_MODULE": str(find_module(None)),
        }
        office.command(
            self._client, "carnet-provision", "token-init", "--label", "floor",
            given={"pin": self._pin, "so-pin": secrets.token_hex(4)}, extra=self._environment,
        )  # fmt: skip

    def run(self, *arguments: str) -> str:
        """Run the program; the PIN goes through a pipe."""
        with pipes({"pin": self._pin}) as (options, fds):
            extra = self._environment | {"BENCH_PIN_FD": options[-1]}
            argv = ["python", "-m", "bench.floor_connect", *arguments]
            return self._client.run(argv, extra=extra, pass_fds=fds).stdout

    def connect(self) -> dict[str, float]:
        """Bring the tunnel up and down; return how long the program took, and its steps."""
        uri = f"unix://{VICI}"
        started = time.monotonic()
        steps: dict[str, Any] = json.loads(self.run("connect", HOST_URL, uri, BARE))
        ended = time.monotonic()
        self._client.run(["swanctl", "--terminate", "--uri", uri, "--ike", BARE])
        loaded, end = 1000 * (steps.pop("begun") - started), 1000 * (ended - steps.pop("over"))
        return {"all": 1000 * (ended - started), "load": loaded, **steps, "end": end}


def _ends() -> tuple[TunnelSpec, TunnelSpec]:
    client = TunnelSpec(
        name=BARE,
        role=Role.CLIENT,
        objective=Objective.ESP,
        mode=Mode.TUNNEL,
        ike_version=2,
        local_addresses=(),
        remote_addresses=(TARGET_ADDRESS,),
        local_identity="client-floor",
        remote_identity="target-floor",
        ike_proposals=("aes256gcm16-prfsha256-x25519",),
        esp_proposals=("aes256gcm16-x25519",),
        ah_proposals=(),
        local_networks=(),
        remote_networks=(WORK_NETWORK,),
        virtual_address="10.99.0.200",
        psk=secrets.token_bytes(32),
        ppk=None,
        ppk_id=None,
        force_udp=False,
        lifetime=36000,
    )
    target = replace(
        client, role=Role.TARGET, remote_addresses=(), local_identity="target-floor",
        remote_identity="client-floor", local_networks=(WORK_NETWORK,), remote_networks=(),
    )  # fmt: skip
    return client, target
