"""How soon a tunnel is down that is revoked: `python -m bench.ending`, or `make bench-ending`.

A tunnel stands in the lab's network, and a background agent watches over it. Measured is,
from the return of the operator's command, when both IKE daemons have no SA of it any more,
and when the traveller's record says why. Target's commands return when the tunnel has ended.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from bench.comparison import Spread
from carnet.ipsec.vici_link import open_session
from carnet.progress import progress_bar
from lab.charon import Charon, choose_lane
from lab.office import USER, Office
from lab.waiting import wait_until
from lab.world import World

_MEMORY = "/run/carnet-client"
"""Where the Client keeps its records."""


@contextmanager
def _at_work(pairs: int) -> Iterator[Office]:
    with World() as world:
        office = Office(world, choose_lane())
        office.set_up(pairs)
        with office.at_work():
            yield office


def _revoke(office: Office, request_id: str) -> None:
    key = _record(office, request_id)["key_id"]
    office.host("revoke", "--key", key, "--reason", "a measurement")


def _end(office: Office, request_id: str) -> None:
    office.target("tunnels", "end", request_id)


def _remove_user(office: Office, _: str) -> None:
    office.target("users", "remove", USER)


Way = Callable[[Office, str], None]

WAYS: dict[str, Way] = {
    "carnet-host revoke": _revoke,
    "carnet-target tunnels end": _end,
    "carnet-target users remove": _remove_user,
}


def _measure(office: Office, way: Way) -> tuple[float, float]:
    """Return the milliseconds until it is down at both ends, and until she is told."""
    done = office.carnet("connect", "--json")
    if done.returncode:
        raise RuntimeError(f"carnet connect failed: {done.stderr}")
    request_id = json.loads(done.stdout)["name"].removeprefix("carnet-")
    wait_until(lambda: _state(office, request_id) == "established", "the tunnel at Target")
    way(office, request_id)
    started = time.perf_counter()
    wait_until(lambda: _is_down(office), "the end at both ends")
    down = 1000 * (time.perf_counter() - started)
    wait_until(lambda: _is_told(office), "the reason")
    told = 1000 * (time.perf_counter() - started)
    office.carnet("disconnect")
    if way is _remove_user:
        office.admit()
    return down, told


def _state(office: Office, request_id: str) -> str:
    return str(_record(office, request_id)["state"])


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


@click.command()
@click.option("--rounds", default=9, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(rounds: int, as_json: bool) -> None:
    """Measure how soon a tunnel is down that is revoked, and its traveller told."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    with (
        _at_work(rounds * len(WAYS)) as office,
        progress_bar("rounds", rounds, wanted=None) as advance,
    ):
        for _ in range(rounds):
            for name, way in WAYS.items():
                taken[name].append(_measure(office, way))
            advance()
    if as_json:
        click.echo(json.dumps(taken))
        return
    for name, figures in taken.items():
        for what, column in zip(("down", "told"), zip(*figures, strict=True), strict=True):
            spread = Spread.of(column)
            click.echo(f"{name:<28}{what}{spread.median:7.0f} ms  (at most {max(column):.0f})")


if __name__ == "__main__":
    main()
