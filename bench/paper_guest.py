"""The paper's evaluation, inside the guest kernel: `python -m bench.paper_guest ORDER`.

ORDER is JSON: rounds, seconds of each measurement, and datagram sizes. Each suite is
brought up by the agents themselves, by `carnet connect`, in turn with objective native; what
was measured is written line by line, as JSON, where the outside reads it.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from bench.in_guest import say
from lab.charon import choose_lane
from lab.machine import Machine
from tests.guest.addresses import BY_VERSION
from tests.guest.offices import OpenOffice
from tests.guest.opening import unwatched_office

_WEAK = "insecure_benchmark_suites = true"
_MODERN = 'profile = "modern"'


@dataclass(frozen=True)
class Suite:
    """What protects the packets, and how Target and Client are told so."""

    name: str
    objective: str
    proposals: str = ""
    """A line of Target's configuration; the profile's where there is none."""
    is_weak: bool = False

    @property
    def settings(self) -> str:
        """Target's lines that have it propose this suite alone."""
        weak = ('profile = "paper"', _WEAK) if self.is_weak else (_MODERN,)
        return "\n".join((*weak, *filter(None, (self.proposals,))))

    @property
    def options(self) -> tuple[str, ...]:
        """What `carnet connect` is told."""
        weak = ("--insecure-benchmark-suites",) if self.is_weak else ()
        return ("--objective", self.objective, "--transport", *weak)


NATIVE = Suite("Native", "native")
SUITES = (
    Suite("AH-MD5-96", "ah", 'ah_proposals = ["md5"]', is_weak=True),
    Suite("AH-SHA1-96", "ah", 'ah_proposals = ["sha1"]', is_weak=True),
    Suite("ESP-MD5-3DES", "esp", 'esp_proposals = ["3des-md5"]', is_weak=True),
    Suite("AH-SHA256", "ah", 'ah_proposals = ["sha256"]'),
    Suite("ESP-AES128-GCM", "esp", 'esp_proposals = ["aes128gcm16"]'),
    Suite("ESP-AES256-GCM", "esp", 'esp_proposals = ["aes256gcm16"]'),
    Suite("ESP-ChaCha20-Poly1305", "esp", 'esp_proposals = ["chacha20poly1305"]'),
    Suite("AH+ESP", "ah+esp"),
)
"""Of Table 5, and what one would take today."""
BY_SIZE = ("ESP-MD5-3DES", "ESP-AES256-GCM")
"""Of Figure 4."""
PACE = 40
"""Megabits a second that every suite carries, so that each leaves the processor some time."""
PASSES = 4
"""How often each size at the edge is measured while a tunnel stands."""
_DATAGRAMS = 2000
"""Sent for one measurement."""
_TICK = 0.01
"""Seconds: the least that the kernel counts the processor busy for."""


@dataclass(frozen=True)
class Order:
    """How much is measured."""

    rounds: int
    seconds: int
    """Of each measurement."""
    sizes: tuple[int, ...]
    """Bytes of the UDP datagrams' payload."""
    edge: tuple[int, ...] = ()
    """Those that are measured in more passes."""
    suites: tuple[str, ...] = ()
    """For Table 5, by name."""
    by_size: tuple[str, ...] = ()
    """For Figure 4."""


def main(order: Order) -> None:
    """Measure all of it."""
    with unwatched_office(choose_lane()) as office, _iperf_at(office.world.target):
        if order.suites:
            _table(office, order)
        if order.by_size:
            _figure(office, order)


def _table(office: OpenOffice, order: Order) -> None:
    with _tunnel(office, NATIVE):
        starting = min(_starting_seconds(office) for _ in range(3))
    for number, suite, side in _in_turn(office, order.suites, order.rounds):
        figures = _tcp(office, side, order, starting)
        _say("table", suite, side, number, figures)


def _figure(office: OpenOffice, order: Order) -> None:
    for number, suite, side in _in_turn(office, order.by_size, order.rounds):
        with _tunnel(office, side):
            for size in _passes(order, number):
                figures = _udp(office.world.client, size)
                _say("figure", suite, side, number, {"size": size, **figures})


def _passes(order: Order, number: int) -> Iterator[int]:
    """Yield sizes forth and back: what drifts while a tunnel stands is of no size."""
    yield from order.sizes[:: -1 if number % 2 else 1]
    for passed in range(PASSES):
        yield from order.edge[:: -1 if passed % 2 else 1]


def _in_turn(
    office: OpenOffice, names: Sequence[str], rounds: int
) -> Iterator[tuple[int, Suite, Suite]]:
    """Yield number of the round, suite, and side: each of these suites, and native after it."""
    for suite in (each for each in SUITES if each.name in names):
        office.have_profile(suite.settings)
        for number in range(rounds):
            for side in (suite, replace(NATIVE, is_weak=suite.is_weak)):
                yield number, suite, side


def _say(what: str, suite: Suite, side: Suite, number: int, figures: dict[str, float]) -> None:
    say({"what": what, "suite": suite.name, "side": side.name, "round": number, **figures})


def _tcp(office: OpenOffice, suite: Suite, order: Order, starting: float) -> dict[str, float]:
    """Send for so long as fast as it goes, and then at a pace that every suite keeps.

    `starting` is what iperf3 itself needs, which no byte costs.
    """
    client, seconds = office.world.client, ("--time", str(order.seconds))
    with _tunnel(office, suite):
        fastest, busy = _busy_with(client, *seconds)
        paced, busy_paced = _busy_with(client, *seconds, "--bitrate", f"{PACE}M")
    received, kept = fastest["sum_received"], paced["sum_received"]
    return {
        "megabits": received["bits_per_second"] / 1e6,
        "nanoseconds_per_byte": 1e9 * (busy - starting) / received["bytes"],
        "cpu_share": min(100.0, 100 * max(_TICK, busy_paced - starting) / kept["seconds"]),
        "paced_megabits": kept["bits_per_second"] / 1e6,
    }


def _starting_seconds(office: OpenOffice) -> float:
    """Return for how long the processor is busy with an iperf3 that sends next to nothing."""
    return _busy_with(office.world.client, "--bytes", "1K")[1]


def _busy_with(client: Machine, *options: str) -> tuple[dict[str, Any], float]:
    """Run iperf3; return what it says, and for how many seconds the processor was not idle.

    Idle time is what the kernel measures; busy time it only samples a hundred times a second.
    """
    started, idle = time.monotonic(), _idle_seconds()
    said = _iperf(client, *options)
    return said, time.monotonic() - started - (_idle_seconds() - idle)


def _udp(client: Machine, size: int) -> dict[str, float]:
    """Send datagrams as fast as they go; return what left, what came, and in how many pieces."""
    before = _fragments(client)
    options = ("--udp", "--bitrate", "0", "--length", str(size))
    said = _iperf(client, *options, "--blockcount", str(_DATAGRAMS))
    fragments = _fragments(client) - before
    sent, received = said["sum_sent"], said["sum_received"]
    return {
        "sent_megabits": sent["bits_per_second"] / 1e6,
        "received_megabits": received["bits_per_second"] / 1e6,
        "fragments": fragments / sent["packets"],
    }


def _fragments(machine: Machine) -> int:
    """Return how many fragments the machine's IPv4 has made so far (FragCreates)."""
    lines = Path(f"/proc/{machine.pid}/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip:"))
    return int(values[names.index("FragCreates")])


@contextmanager
def _tunnel(office: OpenOffice, suite: Suite) -> Iterator[None]:
    """Have a tunnel; Target's profile is one of the suite's already, and native's is any."""
    facts = office.connect(*suite.options)
    try:
        yield
    finally:
        office.end(facts)


@contextmanager
def _iperf_at(target: Machine) -> Iterator[None]:
    served = target.start(["iperf3", "--server"], log="iperf3.log", extra=_scratch(target))
    target.wait_for_port(5201)
    try:
        yield
    finally:
        served.stop()


def _iperf(client: Machine, *options: str) -> dict[str, Any]:
    argv = ["iperf3", "--client", BY_VERSION[4].target, "--json", *options]
    said = json.loads(client.run(argv, check=False, extra=_scratch(client)).stdout)
    if "error" in said:
        raise RuntimeError(f"iperf3 failed: {said['error']}")
    end: dict[str, Any] = said["end"]
    return end


def _scratch(machine: Machine) -> dict[str, str]:
    """Return where iperf3 may write what it sends; nothing else here can be written to."""
    return {"TMPDIR": str(machine.directory)}


def _idle_seconds() -> float:
    """Return for how long the guest's one processor has been idle."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (ticks[3] + ticks[4]) / 100


def order_of(text: str) -> Order:
    """Read an order; what text_of() makes of one."""
    return msgspec.json.decode(text, type=Order)


def text_of(order: Order) -> str:
    """Write an order for the command line."""
    return msgspec.json.encode(order).decode()


if __name__ == "__main__":
    main(order_of(sys.argv[1]))
