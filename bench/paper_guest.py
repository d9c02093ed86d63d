"""The paper's evaluation, inside the guest kernel: `python -m bench.paper_guest ORDER`.

ORDER is JSON: rounds, seconds of each measurement, and datagram sizes. Each suite is
brought up by the agents themselves, by `carnet connect`, in turn with objective native; what
was measured is written line by line, as JSON, where the outside reads it.
"""

import json
import sys
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


@dataclass(frozen=True)
class Order:
    """How much is measured."""

    rounds: int
    seconds: int
    """Of each measurement."""
    sizes: tuple[int, ...]
    """Bytes of the UDP datagrams' payload."""
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
            # Forth and back: what drifts while a tunnel stands is of no size.
            for size in order.sizes[:: -1 if number % 2 else 1]:
                figures = _udp(office.world.client, size)
                _say("figure", suite, side, number, {"size": size, **figures})


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
    """Send for so long; `starting` is what iperf3 itself needs, which no byte costs."""
    with _tunnel(office, suite):
        before = _busy_seconds()
        said = _iperf(office.world.client, "--time", str(order.seconds))
        busy = _busy_seconds() - before - starting
    received = said["sum_received"]
    return {
        "megabits": received["bits_per_second"] / 1e6,
        "cpu_share": min(100.0, 100 * busy / received["seconds"]),
        "nanoseconds_per_byte": 1e9 * busy / received["bytes"],
    }


def _starting_seconds(office: OpenOffice) -> float:
    """Return for how long the processor is busy with an iperf3 that sends next to nothing."""
    before = _busy_seconds()
    _iperf(office.world.client, "--bytes", "1K")
    return _busy_seconds() - before


def _udp(client: Machine, size: int) -> dict[str, float]:
    """Send datagrams as fast as they go for a second; return what left, and what came."""
    options = ("--udp", "--bitrate", "0", "--length", str(size), "--time", "1")
    said = _iperf(client, *options)
    sent, received = said["sum_sent"], said["sum_received"]
    return {
        "sent_megabits": sent["bits_per_second"] / 1e6,
        "received_megabits": received["bits_per_second"] / 1e6,
    }


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


def _busy_seconds() -> float:
    """Return for how long the guest's one processor has not been idle."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    idle = ticks[3] + ticks[4]
    return (sum(ticks[:8]) - idle) / 100


def order_of(text: str) -> Order:
    """Read an order; what text_of() makes of one."""
    return msgspec.json.decode(text, type=Order)


def text_of(order: Order) -> str:
    """Write an order for the command line."""
    return msgspec.json.encode(order).decode()


if __name__ == "__main__":
    main(order_of(sys.argv[1]))
