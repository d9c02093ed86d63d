"""Clients that send requests to a Host, each on a connection of its own, as travellers do."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.comparison import Spread
from tests.host.real_host import http

_ACHIEVED, _QUEUE, TRIES = 0.95, 2, 3


@dataclass(frozen=True)
class Load:
    """What came of it."""

    seconds: float
    latencies: tuple[float, ...]
    """Milliseconds of each request, from the connection to the end of its answer."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: int) -> float:
        """Return the latency, in milliseconds, that so many of a hundred stay below."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]

    @property
    def median(self) -> float:
        """The median latency, in milliseconds."""
        return Spread.of(self.latencies).median


@dataclass(frozen=True)
class Offered:
    """A load at a steady rate, and what tells whether it was too much."""

    load: Load
    rate: float
    """Requests a second that were sent."""
    alone: float
    """The median latency of one Client just before, in milliseconds."""

    @property
    def kept_up(self) -> bool:
        """Whether the Host did: it answered as fast as it was asked, and nobody had to queue."""
        load = self.load
        return load.rate >= _ACHIEVED * self.rate and load.median <= _QUEUE * self.alone


def until_kept_up(offer: Callable[[], Offered], most: int = TRIES) -> list[Offered]:
    """Offer a load, and again where the Host did not keep up, a few times; return all of them."""
    tries = [offer()]
    while not tries[-1].kept_up and len(tries) < most:
        tries.append(offer())
    return tries


def pooled(loads: Sequence[Load]) -> Load:
    """Return all requests of these loads as one, for percentiles that need many."""
    return Load(
        sum(each.seconds for each in loads),
        tuple(latency for each in loads for latency in each.latencies),
    )


def closed_loop(ports: Sequence[int], bodies: Sequence[bytes], clients: int) -> Load:
    """Have so many Clients send these bodies, each its next one when it has an answer.

    The Clients are spread over the ports. Raises RuntimeError for an answer that is none.
    """
    return asyncio.run(_closed_loop(ports, bodies, clients))


def open_loop(port: int, bodies: Sequence[bytes], rate: float) -> Load:
    """Send these bodies at a steady rate, in requests a second, whatever the answers do.

    A latency counts from when the request was due.
    """
    return asyncio.run(_open_loop(port, bodies, rate))


async def _closed_loop(ports: Sequence[int], bodies: Sequence[bytes], clients: int) -> Load:
    left = iter(bodies)
    taken: list[float] = []
    started = time.perf_counter()
    await asyncio.gather(
        *(_client(ports[number % len(ports)], left, taken) for number in range(clients))
    )
    return Load(time.perf_counter() - started, tuple(taken))


async def _client(port: int, left: Iterator[bytes], taken: list[float]) -> None:
    # One after the other: a comprehension would do the same and look as if it did not.
    for body in left:
        latency = await _request(port, body, time.perf_counter())
        taken.append(latency)


async def _open_loop(port: int, bodies: Sequence[bytes], rate: float) -> Load:
    started = time.perf_counter()

    async def send(number: int, body: bytes) -> float:
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        return await _request(port, body, due)

    taken = await asyncio.gather(*(send(number, body) for number, body in enumerate(bodies)))
    return Load(time.perf_counter() - started, tuple(taken))


async def _request(port: int, body: bytes, since: float) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(http(body, headers=("Connection: close",)))
        answer = await reader.read(-1)
    finally:
        writer.close()
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"Host answered {answer[:40]!r}.")
    return 1000 * (time.perf_counter() - since)
