"""What a request costs with few pairs and with very many: `python -m bench.key_stores`.

Two Hosts with key store `wrapped` serve on loopback, each with a SoftHSM2 token and a
SQLite Key Database of its own: one traveller with 50 pairs, and 2,000 with 50 each. They
are asked in turn, a block of requests each, so that whatever slows the machine down slows
both. Each request is opened, refused by Host itself, answered and its pair burned.
Processor time is the Host's own, which other programs disturb less than a clock.
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
Figures = dict[str, dict[str, dict[str, float]]]
"""By Host, and by what was measured: median and quartiles, in microseconds."""
_STEP = re.compile(rb"step[27];dur=([0-9.]+)")


def measure(port: int, keys: list[SoftwareKey], pid: int) -> list[dict[str, float]]:
    """Return, for a request of each pair, microseconds in all, on the HSM, of the processor."""
    taken = []
    for key in keys:
        body, used = sealed(key), processor_time(pid)
        started = time.perf_counter_ns()
        answer = post(port, body)
        in_all = (time.perf_counter_ns() - started) / 1000
        on_hsm = 1000 * sum(map(float, _STEP.findall(answer)))
        time.sleep(0.05)  # the burn comes after the answer
        processor = processor_time(pid) - used
        taken.append({"request": in_all, "hsm": on_hsm, "processor": processor})
    return taken


def processor_time(pid: int) -> float:
    """Return the microseconds for which a process's threads ran, since it was started."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(each.read_text().split()[0]) for each in threads) / 1000


def run(directory: Path, travellers: int, each: int, blocks: int) -> Figures:
    """Set both Hosts up, measure, and return the figures."""
    requests = each - 1
    size = -(-requests // blocks)
    taken: dict[str, list[dict[str, float]]] = {FEW: [], MANY: []}
    with (
        filled_host(directory / FEW, 1, each, requests) as few,
        filled_host(directory / MANY, travellers, each, requests) as many,
    ):
        for start in range(0, requests, size):
            for name, (port, keys, pid) in ((FEW, few), (MANY, many)):
                taken[name] += measure(port, keys[start : start + size], pid)
    return {
        name: {what: summary([each[what] for each in values]) for what in values[0]}
        for name, values in taken.items()
    }


def ratios(figures: Figures) -> dict[str, float]:
    """Return what many pairs cost for each 1 that few cost, by the medians."""
    return {
        what: round(many["median"] / figures[FEW][what]["median"], 3)
        for what, many in figures[MANY].items()
    }


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
                click.echo(f"{count:>7} pairs  {what:<10}{figure} microseconds")
        click.echo(f"ratio of the medians: {ratio}")


if __name__ == "__main__":
    main()
