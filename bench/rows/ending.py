"""How soon a tunnel is down that is revoked, next to IPsec's own end of one.

A tunnel stands in the lab's network, and a background agent watches over it. Measured is,
from the start of the operator's command, when it has returned and both IKE daemons have no
SA any more, and when the traveller's record says why.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.bare_tunnel import BARE, bare_connection
from bench.comparison import Aim, Row, Spread
from bench.plan import Plan
from bench.rows.connect import office_at_work
from carnet.ipsec.vici_link import open_session
from lab.charon import VICI, Charon
from lab.office import USER, Office
from lab.waiting import wait_until
from lab.world import World

GROUP = "Ending a tunnel"
_AIM = Aim("at most 2,000 ms", limit=2_000)
_MEMORY = "/run/carnet-client"
"""Where the Client keeps its records."""
_URI = ("--uri", f"unix://{VICI}")

Way = Callable[[Office, dict[str, Any]], None]
"""Ends the tunnel of a record of Target's."""


def _revoke(office: Office, record: dict[str, Any]) -> None:
    office.host("revoke", "--key", record["key_id"], "--reason", "a measurement")


def _end(office: Office, record: dict[str, Any]) -> None:
    office.target("tunnels", "end", record["request_id"])


def _remove_user(office: Office, _: dict[str, Any]) -> None:
    office.target("users", "remove", USER)


_WAYS: dict[str, Way] = {
    "carnet-host revoke": _revoke,
    "carnet-target tunnels end": _end,
    "carnet-target users remove": _remove_user,
}


def rows(plan: Plan) -> Iterator[Row]:
    """Measure each way, and the floor, in turn."""
    rounds = plan.rounds(5)
    ways = {name: way for name, way in _WAYS.items() if not plan.quick or way is _revoke}
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    floor = []
    with (
        World() as world,
        office_at_work(world, (rounds + 1) * len(ways)) as office,
        bare_connection(office),
        plan.progress("ending", rounds + 1) as advance,
    ):
        for number in range(rounds + 1):
            figures = {name: _measure(office, way) for name, way in ways.items()}
            bare = _bare(office)
            if number:
                floor.append(bare)
                for name, figure in figures.items():
                    taken[name].append(figure)
            advance()
    for name, each in taken.items():
        yield from _rows(name, each, tuple(floor))


def _rows(name: str, taken: Sequence[dict[str, float]], floor: tuple[float, ...]) -> Iterator[Row]:
    returned, down, told = (tuple(each[what] for each in taken) for what in taken[0])
    alone = Spread.of(returned).median
    yield _row(
        f"{name}: down at both ends", _AIM, down, floor,
        f"at most {max(down):,.0f} ms; its command alone has returned after {alone:,.0f} ms",
    )  # fmt: skip
    yield _row(
        f"{name}: the traveller is told why", Aim("to be seen"), told, floor,
        f"at most {max(told):,.0f} ms",
    )  # fmt: skip


def _row(name: str, aim: Aim, ours: tuple[float, ...], floor: tuple[float, ...], note: str) -> Row:
    return Row(
        group=GROUP, name=name, floor_name="swanctl --terminate at Target: down at both ends",
        unit="ms", aim=aim, ours=ours, floor=floor, note=note,
    )  # fmt: skip


def _measure(office: Office, way: Way) -> dict[str, float]:
    """Return the milliseconds until the command has returned, it is down, and she is told."""
    done = office.carnet("connect", "--json")
    if done.returncode:
        raise RuntimeError(f"carnet connect failed: {done.stderr}")
    request_id = json.loads(done.stdout)["name"].removeprefix("carnet-")
    wait_until(lambda: _record(office, request_id)["state"] == "established", "it at Target")
    record = _record(office, request_id)
    since = _clock()
    way(office, record)
    taken = {"returned": since()}
    wait_until(lambda: _is_down(office), "the end at both ends")
    taken["down"] = since()
    wait_until(lambda: _is_told(office), "the reason")
    taken["told"] = since()
    office.carnet("disconnect")
    if way is _remove_user:
        office.admit()
    return taken


def _bare(office: Office) -> float:
    """Return how long strongSwan alone takes for one of its own."""
    office.world.client.run(["swanctl", "--initiate", *_URI, "--child", BARE])
    since = _clock()
    office.world.target.run(["swanctl", "--terminate", *_URI, "--ike", BARE])
    wait_until(lambda: _is_down(office), "the end at both ends")
    return since()


def _clock() -> Callable[[], float]:
    """Return what tells the milliseconds from now on."""
    started = time.perf_counter()
    return lambda: 1000 * (time.perf_counter() - started)


def _record(office: Office, request_id: str) -> dict[str, Any]:
    return next(each for each in office.tunnels() if each["request_id"] == request_id)


def _is_down(office: Office) -> bool:
    return not any(_has_sas(each) for each in (office.client_charon, office.target_charon))


def _has_sas(charon: Charon) -> bool:
    with open_session(charon.vici) as session:
        return any(list(session.list_sas()))


def _is_told(office: Office) -> bool:
    records = office.world.client.path(_MEMORY).glob("session-*.json")
    return any(json.loads(each.read_bytes())["ended"] for each in records)
