"""How soon a pulled token is noticed: `python -m bench.removal`, or `make bench-removal`.

A tunnel stands in the lab's network, its token on SoftHSM2, whose directory is taken away.
Measured is the time until `carnet connect --foreground` says so, and until the background
agent has ended the tunnel: pulled when it has watched for a while, and right after
`carnet connect` returned, when it has only been started.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from bench.comparison import Spread
from carnet.progress import progress_bar
from lab.charon import choose_lane
from lab.office import Office
from lab.process import Process
from lab.waiting import wait_until
from lab.world import World

_MEMORY = "/run/carnet-client"
"""Where the Client keeps its records."""
_WATCHING_SECONDS = 3.0
"""After which the agent is past its start, on any machine."""


@contextmanager
def _at_work(pairs: int) -> Iterator[Office]:
    with World() as world:
        office = Office(world, choose_lane())
        office.set_up(pairs)
        with office.at_work():
            yield office


def _pull_and(office: Office, seen: Callable[[], object]) -> float:
    """Pull the token; return the milliseconds until something is seen."""
    started = time.perf_counter()
    office.pull_out(office.world.client)
    wait_until(lambda: bool(seen()), "the pulled token to be noticed")
    taken = 1000 * (time.perf_counter() - started)
    office.plug_in(office.world.client)
    return taken


def _foreground(office: Office) -> float:
    connected: Process = office.start_connect("--foreground")
    connected.wait_for_line("The tunnel stands until Ctrl-C")
    taken = _pull_and(office, lambda: "was pulled out" in connected.output())
    connected.wait()
    return taken


def _background(office: Office, watched_for: float) -> float:
    done = office.carnet("connect")
    if done.returncode:
        raise RuntimeError(f"carnet connect failed: {done.stderr}")
    time.sleep(watched_for)
    taken = _pull_and(office, lambda: _ended(office))
    office.carnet("disconnect")
    return taken


def _ended(office: Office) -> bool:
    """Whether the record of the tunnel, in the Client's memory, says that it ended."""
    place = office.world.client.path(_MEMORY)
    return any(b"pulled out" in each.read_bytes() for each in _files(place))


def _files(place: Path) -> list[Path]:
    return [Path(each.path) for each in os.scandir(place) if each.is_file()]


@click.command()
@click.option("--rounds", default=9, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(rounds: int, as_json: bool) -> None:
    """Measure how soon a pulled token is noticed."""
    ways: dict[str, Callable[[Office], float]] = {
        "--foreground says so": _foreground,
        "the agent has ended the tunnel": lambda office: _background(office, _WATCHING_SECONDS),
        "the same, pulled as it starts": lambda office: _background(office, 0),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with (
        _at_work(rounds * len(ways)) as office,
        progress_bar("rounds", rounds, wanted=None) as advance,
    ):
        for _ in range(rounds):
            for name, way in ways.items():
                taken[name].append(way(office))
            advance()
    if as_json:
        click.echo(json.dumps(taken))
        return
    for name, figures in taken.items():
        spread = Spread.of(figures)
        click.echo(
            f"{name:<34}{spread.median:7.0f} ms  ({spread.low:.0f} to {spread.high:.0f}, "
            f"at most {max(figures):.0f})"
        )


if __name__ == "__main__":
    main()
