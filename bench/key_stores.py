"""What a request costs with few pairs and with very many: `python -m bench.key_stores`.

Two Hosts with key store `wrapped` serve on loopback, each with a SoftHSM2 token and a
SQLite Key Database of its own: one traveller with 50 pairs, and 2,000 with 50 each. They
are asked in turn, a block of requests each, so that whatever slows the machine down slows
both. Each request is opened, refused by Host itself, answered and its pair burned.
"""

import json
import re
import tempfile
import time
from pathlib import Path

import click

from bench.timing import summary
from tests.host.filled import filled_host, post
from tests.host.real_host import sealed
from tests.unit.examples import SoftwareKey

FEW, MANY = "few", "many"
_STEP = re.compile(rb"step[27];dur=([0-9.]+)")


def measure(port: int, keys: list[SoftwareKey]) -> list[tuple[float, float]]:
    """Return, for a request of each pair, microseconds in all and on the HSM's thread."""
    taken = []
    for key in keys:
        body = sealed(key)
        started = time.perf_counter_ns()
        answer = post(port, body)
        in_all = (time.perf_counter_ns() - started) / 1000
        taken.append((in_all, 1000 * sum(map(float, _STEP.findall(answer)))))
    return taken


def run(directory: Path, travellers: int, each: int, blocks: int) -> dict[str, dict[str, object]]:
    """Set both Hosts up, measure, and return the figures."""
    requests = each - 1
    size = -(-requests // blocks)
    taken: dict[str, list[tuple[float, float]]] = {FEW: [], MANY: []}
    with (
        filled_host(directory / FEW, 1, each, requests) as few,
        filled_host(directory / MANY, travellers, each, requests) as many,
    ):
        for start in range(0, requests, size):
            for name, (port, keys) in ((FEW, few), (MANY, many)):
                taken[name] += measure(port, keys[start : start + size])
    return {
        name: {
            "request": summary([in_all for in_all, _ in values]),
            "hsm": summary([on_hsm for _, on_hsm in values]),
        }
        for name, values in taken.items()
    }


def ratios(figures: dict[str, dict[str, object]]) -> dict[str, float]:
    """Return what many pairs cost for each 1 that few cost, by the medians."""
    medians: dict[str, list[float]] = {"request": [], "hsm": []}
    for name in (FEW, MANY):
        for what, values in medians.items():
            figure = figures[name][what]
            assert isinstance(figure, dict)  # noqa: S101  for the type checker
            values.append(figure["median"])
    return {what: round(many / few, 3) for what, (few, many) in medians.items()}


@click.command()
@click.option("--travellers", default=2000, show_default=True, help="With 50 pairs each.")
@click.option("--blocks", default=7, show_default=True, help="In which each Host is asked.")
@click.option("--runs", default=1, show_default=True, help="How often, all of it anew.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(travellers: int, blocks: int, runs: int, as_json: bool) -> None:
    """Measure a request with 50 pairs and with very many, in key store `wrapped`."""
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as name:
            figures = run(Path(name), travellers, 50, blocks)
        ratio = ratios(figures)
        if as_json:
            click.echo(json.dumps({"pairs": 50 * travellers, "figures": figures, "ratio": ratio}))
            continue
        for who, count in ((FEW, 50), (MANY, 50 * travellers)):
            for what, figure in figures[who].items():
                click.echo(f"{count:>7} pairs  {what:<8} {figure} microseconds")
        click.echo(f"ratio of the medians: {ratio}")


if __name__ == "__main__":
    main()
