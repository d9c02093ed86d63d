"""Clients that send requests to a Host, each on a connection of its own, as travellers do."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.comparison import Spread
from tests.host.real_host import http

_ACHIEVED, _QUEUE, TRIES = 0.95, 2, 3
_PORTION = 24
"""Requests, in which a rate is taken for the same."""


@dataclass(frozen=True)
class Load:
    """What came of it."""

    seconds: float
    latencies: tuple[float, ...]
    """Milliseconds of each request, from the connection to the end of its answer."""
    ends: tuple[float, ...] = ()
    """In seconds from the beginning, when each was answered; nothing where it was not noted."""

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

    def paced(self, share: float) -> list[float]:
        """Return when requests are due that come at this share of the rate, in seconds.

        It is the rate of its time: a token carries more as its pairs become fewer, and so much
        at every moment is asked of another one.
        """
        due: list[float] = []
        since = 0.0
        for first in range(0, len(self.ends), _PORTION):
            portion = self.ends[first : first + _PORTION]
            step = (portion[-1] - since) / len(portion)
            due += [(since + step * number) / share for number in range(len(portion))]
            since = portion[-1]
        return due


@dataclass(frozen=True)
class Offered:
    """A load at a rate that was chosen, and what tells whether it was too much."""

    load: Load
    rate: float
    """Requests a second that were sent, over all of it."""
    alone: float
    """The median latency of one Client just before and just after, in milliseconds."""

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


def open_loop(port: int, bodies: Sequence[bytes], due: Sequence[float]) -> Load:
    """Send each of these bodies when it is due, in seconds, whatever the answers do.

    A latency counts from when the request was due.
    """
    return asyncio.run(_open_loop(port, bodies, due))


async def _closed_loop(ports: Sequence[int], bodies: Sequence[bytes], clients: int) -> Load:
    left = iter(bodies)
    taken: list[float] = []
    ends: list[float] = []
    started = time.perf_counter()

    async def client(port: int) -> None:
        for body in left:
            taken.append(await _request(port, body, time.perf_counter()))
            ends.append(time.perf_counter() - started)

    await asyncio.gather(*(client(ports[number % len(ports)]) for number in range(clients)))
    return Load(time.perf_counter() - started, tuple(taken), tuple(ends))


async def _open_loop(port: int, bodies: Sequence[bytes], due: Sequence[float]) -> Load:
    started = time.perf_counter()

    async def send(body: bytes, at: float) -> float:
        await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
        return await _request(port, body, started + at)

    taken = await asyncio.gather(*map(send, bodies, due))
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
