"""`carnet connect` from afar, in the guest kernel: `python -m bench.distance_guest "ROUNDS MS …"`.

netem delays what goes between the Client and the router, each way by half of a round-trip
time, so both Host and Target are that far away. Measured is `carnet connect`, in turn with
the floor of a connection (bench.bare_tunnel).
"""

import json
import sys
from pathlib import Path
from typing import Any

from bench.bare_tunnel import bare_tunnel
from bench.in_guest import say
from lab.capture import Capture
from lab.charon import choose_lane
from lab.machine import Machine
from lab.network import CLIENT_ADDRESS, TARGET_ADDRESS, WORK_NETWORK
from tests.guest.offices import OpenOffice
from tests.guest.opening import unwatched_office

WARMING = 3
"""Connections in advance: programs that start for the first time are slow in this kernel."""
STEPS = {"8": "network", "9": "ike"}
"""The answer delivered, IKE negotiated: the paper's numbers, and what the floor calls them."""
_IKE_REQUEST = (
    "(udp dst port 500 and udp[27] & 0x20 = 0) or "
    "(udp dst port 4500 and udp[4:2] >= 40 and udp[8:4] = 0 and udp[31] & 0x20 = 0)"
)
"""No response: the flag R of the IKE header (RFC 7296 section 3.1), after UDP's header and on
port 4500 the marker."""


def main(rounds: int, *away: int) -> None:
    """Measure from so many milliseconds away, forth and back.

    What drifts then moves no difference. The first connections warm up, one of them is counted
    by its packets.
    """
    pairs = rounds * len(away) + WARMING
    with unwatched_office(choose_lane()) as office, bare_tunnel(office, pairs) as bare:
        say({"what": "packets", **_packets(office)})
        for _ in range(WARMING):
            _timed(office)
            bare()
        for number in range(rounds):
            for milliseconds in away[:: -1 if number % 2 else 1]:
                _be_away(office, milliseconds)
                common = {"rtt": milliseconds, "round": number}
                say({"what": "connect", **common, **_timed(office)})
                taken = bare()
                say({"what": "floor", **common, **{x: taken[y] for x, y in STEPS.items()}})
        _be_away(office, 0)


def _be_away(office: OpenOffice, milliseconds: int) -> None:
    _delay(office.world.client, "eth0", milliseconds / 2)
    _delay(office.world.router, "client", milliseconds / 2)


def _delay(machine: Machine, interface: str, milliseconds: float) -> None:
    netem = ["root", "netem", "delay", f"{milliseconds}ms"]
    machine.run(["tc", "qdisc", "replace", "dev", interface, *netem])


def _timed(office: OpenOffice) -> dict[str, float]:
    """Return the milliseconds of the two steps that wait for the network, and of no work."""
    before = _idle_milliseconds()
    facts = _connect(office)
    idle = _idle_milliseconds() - before
    office.end(facts)
    return {step: facts["steps_ms"][step] for step in STEPS} | {"idle": idle}


def _idle_milliseconds() -> float:
    """Return for how long the guest's one processor had nothing to do (proc_stat(5))."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return 10.0 * (ticks[3] + ticks[4])


def _packets(office: OpenOffice) -> dict[str, int]:
    """Count what a connection sends that is answered; the router sees it come and go."""
    with Capture(office.world.router) as capture:
        facts = _connect(office)
        capture.flush()
        counts = {
            "tcp": f"src host {CLIENT_ADDRESS} and tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn",
            "ike": f"src host {CLIENT_ADDRESS} and ({_IKE_REQUEST})",
            "ike_of_target": f"src host {TARGET_ADDRESS} and ({_IKE_REQUEST})",
        }
        found = {name: capture.count(which) // 2 for name, which in counts.items()}
    office.end(facts)
    return found


def _connect(office: OpenOffice) -> dict[str, Any]:
    done = office.carnet("connect", "--json", "--objective", "esp", "--network", WORK_NETWORK)
    if done.returncode:
        raise RuntimeError(f"carnet connect ended with {done.returncode}: {done.stderr}")
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


if __name__ == "__main__":
    main(*map(int, sys.argv[1].split()))
