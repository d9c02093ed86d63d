"""What an unauthenticated sender can learn from how long Host takes: `python -m bench.timing`.

A Host serves on loopback, its pairs on a SoftHSM2 token. Requests of each kind are sent
in turn, one of each a round, so that whatever slows the machine down slows all kinds.
"""

import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

import click
import structlog

from carnet.token.finding import find_module
from carnet.token.module import load_module
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare
from tests.host.real_host import RealHost, http, read_all, sealed, spoiled
from tests.unit.examples import SoftwareKey

UNKNOWN, BAD_SEAL, SPENT, NO_MESSAGE = (
    "unknown key_id",
    "valid pair, bad seal",
    "spent pair, other bytes",
    "no sealed message",
)


def exchange(port: int, data: bytes) -> float:
    """Return microseconds from the first byte sent to the end of the answer."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        started = time.perf_counter_ns()
        connection.sendall(data)
        read_all(connection)
        return (time.perf_counter_ns() - started) / 1000


def measure(host: RealHost, kinds: dict[str, bytes], rounds: int) -> dict[str, list[float]]:
    """Return what each kind took, round after round; one round in advance is not counted."""
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    with click.progressbar(range(rounds + 1), label="rounds", file=sys.stderr) as bar:
        for number in bar:
            for kind, data in kinds.items():
                microseconds = exchange(host.port, data)
                if number:
                    taken[kind].append(microseconds)
    return taken


def summary(values: list[float]) -> dict[str, float]:
    """Return the median and the quartiles, in microseconds."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 1), "q1": round(low, 1), "q3": round(high, 1)}


def run(directory: Path, rounds: int, pairs: int) -> dict[str, dict[str, float]]:
    """Set a Host up, measure, and return the figures by kind."""
    os.environ[CONFIGURATION_VARIABLE] = str(prepare(directory / "softhsm"))
    host = RealHost(directory, load_module(find_module(None)))
    keys = [SoftwareKey() for _ in range(max(2, pairs))]
    host.add_pairs(*keys)
    valid, spent = keys[:2]
    with host:
        exchange(host.port, http(sealed(spent)))
        kinds = {
            NO_MESSAGE: http(bytes(1500)),
            UNKNOWN: http(sealed(SoftwareKey())),
            SPENT: http(sealed(spent)),
            BAD_SEAL: http(spoiled(sealed(valid))),
        }
        return {kind: summary(v) for kind, v in measure(host, kinds, rounds).items()}


@click.command()
@click.option("--rounds", default=1000, show_default=True, help="Requests of each kind.")
@click.option("--pairs", default=50, show_default=True, help="Key pairs on the token.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(rounds: int, pairs: int, as_json: bool) -> None:
    """Measure how long Host takes to refuse, by the reason that it does not tell."""
    # The Host logs each refusal, as it does when it serves; but not onto this terminal.
    with Path(os.devnull).open("w") as nowhere, tempfile.TemporaryDirectory() as name:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(nowhere))
        figures = run(Path(name), rounds, pairs)
    if as_json:
        click.echo(json.dumps({"rounds": rounds, "pairs": pairs, "microseconds": figures}))
        return
    click.echo(f"{'microseconds':<26}{'median':>10}{'q1':>10}{'q3':>10}")
    for kind, figure in figures.items():
        click.echo(f"{kind:<26}{figure['median']:>10}{figure['q1']:>10}{figure['q3']:>10}")


if __name__ == "__main__":
    main()
