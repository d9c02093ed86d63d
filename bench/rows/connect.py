"""`carnet connect`, a cold process until the tunnel is up, next to what no tunnel does without."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from bench.bare_tunnel import bare_tunnel
from bench.comparison import Aim, Row, Spread, in_turn
from bench.peer import peer
from bench.plan import Plan
from bench.rows import pieces
from bench.rows.commands import python
from bench.rows.pieces import account
from lab.charon import choose_lane
from lab.office import Office
from lab.world import World

GROUP = "Connecting"
_STEPS = {
    "1  sign and seal": ("1", "sign"),
    "9  IKE": ("9", "ike"),
    "10  destroy the private key": ("10", "destroy"),
}
"""The steps that the floor has too: their numbers in the paper, and what the floor calls them."""
_OURS = (
    "from carnet.entry import import_light; import_light('token_client.cli'); "
    "import token_client.commands.connect, token_client.opening, token_client.background; "
    "import carnet.ipsec.strongswan"
)
"""As the command has them loaded."""
_BARE = (
    "from carnet.entry import import_light; import_light('pkcs11'); "
    "import http.client, json, subprocess"
)
"""As lightly as ours: what neither uses of these is not loaded."""
_Sides = Sequence[dict[str, float]]
"""Of each round: milliseconds by step, and of all."""


def rows(plan: Plan) -> Iterator[Row]:
    """Measure whole processes, and the steps that both sides have."""
    rounds = plan.rounds(11)
    pairs = 2 * (rounds + 1)
    with (
        World() as world,
        office_at_work(world, pairs) as office,
        bare_tunnel(office, pairs) as bare,
        peer() as alone,
        plan.progress("carnet connect", rounds + 1) as advance,
    ):
        taken = []
        for number in range(rounds + 1):
            figures = _carnet(office), bare(), alone(), account(office)
            if number:
                taken.append(figures)
            bare()  # not counted: both tokens have as many pairs in each round
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
        partial(python, _BARE, environment),
        rounds,
    )
    return _row("its imports alone", "those of the floor, alone", Aim("to be seen"), ours, floor)


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
