"""How this machine's operator ends tunnels: through the service while one runs, else directly.

A lock in the Target's directory tells which: whoever holds it, and nobody else,
changes tunnels.
"""

import asyncio
import contextlib
import fcntl
import operator
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import msgspec
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from carnet.errors import IPsecError, UnreachableError
from carnet.files import private_directory, private_file
from carnet.ipsec.driver import Driver
from carnet.ipsec.drivers import unit_of
from carnet.objectives import Objective
from carnet.tunnel import tunnel_name
from carnet.worker import together
from target_agent.config import TargetConfig
from target_agent.gate import make_gate
from target_agent.orders import Orders
from target_agent.records import Records, TunnelRecord

PATH = "/v1/end"
_SECONDS = 60
_STEP_SECONDS = 0.05


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """End one tunnel, or all of a user, for that reason."""

    reason: str
    request_id: str | None = None
    user_id: str | None = None


class Ended(msgspec.Struct, frozen=True):
    """The Request IDs of the tunnels that ended, and of those that wait for the IKE daemon."""

    ended: tuple[str, ...]
    waiting: tuple[str, ...] = ()


@contextlib.contextmanager
def sole_hold(
    path: Path, seconds: float = 0, given_up: Callable[[], bool] = lambda: False
) -> Iterator[bool]:
    """Hold the lock; yields False if another process has it for so long, or it is given up."""
    waiting = Retrying(
        retry=retry_if_result(operator.not_),
        stop=lambda state: given_up() or stop_after_delay(seconds)(state),
        wait=wait_fixed(_STEP_SECONDS),
        retry_error_callback=lambda _: False,
    )
    private_directory(path.parent)
    with private_file(path).open("rb") as file:
        yield waiting(_is_locked, file)


def _is_locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_served(config: TargetConfig) -> bool:
    """Whether a service runs that takes an operator's orders."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(config.control_socket)) == 0


@dataclass(frozen=True)
class Operator:
    """What ends tunnels at an operator's command."""

    config: TargetConfig
    driver: Driver
    records: Records
    orders: Orders

    def end(self, order: Order) -> tuple[str, ...]:
        """End tunnels; return their Request IDs.

        The order is written down before anything else, so that no death of the service loses it,
        and no wake-up of it that is lost.

        Raises IPsecError if the IKE daemon does not answer, UnreachableError if the
        service runs and does not.
        """
        with sole_hold(self.config.lock) as alone:
            doomed = self._doom(order)
            done = self._end_here(doomed, order) if alone else self._end_there(doomed, order)
        if done.waiting:
            unit = unit_of(self.driver)
            start = f" (systemctl start {unit})" if unit else ""
            service = ", and carnet-target after it" if alone else ""
            raise IPsecError(
                f"The IKE daemon does not answer; {len(done.waiting)} of the tunnels will end"
                f" as soon as it does: start it{start}{service}."
            )
        return done.ended

    def _doom(self, order: Order) -> list[TunnelRecord]:
        """Write down what is to end: a service that starts ends it."""
        doomed = [record for record in self.records.live() if _is_meant(record, order)]
        for record in doomed:
            self.records.doom(record.request_id, order.reason)
        return doomed

    def _end_there(self, doomed: list[TunnelRecord], order: Order) -> Ended:
        """Have the service end them, and those that it is just preparing.

        The order stays written down until it has.
        """
        request_id = None if order.request_id is None else bytes.fromhex(order.request_id)
        number = self.orders.write(request_id, order.user_id, order.reason)
        try:
            done = asyncio.run(_ask_service(self.config, order))
        except _ServiceError as error:
            live = f"{len(doomed)} of the tunnels that are live" if doomed else "none that is live"
            raise UnreachableError(
                f"The service carnet-target {error}; the order is written down, for {live} and"
                " what is just being made, and is obeyed as the service looks at it or starts anew:"
                " restart it (systemctl restart carnet-target), and see its log."
            ) from error
        self.orders.obeyed(number)
        return done

    def _end_here(self, doomed: list[TunnelRecord], order: Order) -> Ended:
        """End them without the service; it does at its start what cannot be done now."""
        gate = make_gate(self.config)
        if gate is not None and any(record.objective_id == Objective.NATIVE for record in doomed):
            # Who else is let through is known to the service alone, and it does not run:
            # it opens again for those who stand.
            gate.shut()
        ended, waiting = [], []
        for record, down in zip(doomed, self._downs(doomed), strict=True):
            try:
                down.result()
            except IPsecError:
                waiting.append(record.request_id.hex())
                continue
            self.records.end(record.request_id, record.end_reason or order.reason)
            ended.append(record.request_id.hex())
        return Ended(ended=tuple(ended), waiting=tuple(waiting))

    def _downs(self, doomed: list[TunnelRecord]) -> "Iterator[Future[None]]":
        """Take them out one after another; once the daemon is silent, all others together.

        Each but the first asks it briefly, and takes what it left out of the kernel.
        """
        downs = [partial(self.driver.down, tunnel_name(each.request_id)) for each in doomed]
        while downs:
            (down,) = together([downs.pop(0)])
            yield down
            if isinstance(down.exception(), IPsecError):
                yield from together(downs)
                return


class _ServiceError(Exception):
    """What the service does instead of its work, to follow its name."""


async def _ask_service(config: TargetConfig, order: Order) -> Ended:
    import aiohttp  # noqa: PLC0415  slow to load, and seldom needed

    connector = aiohttp.UnixConnector(str(config.control_socket))
    timeout = aiohttp.ClientTimeout(_SECONDS)
    body = msgspec.json.encode(order)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.post(f"http://carnet-target{PATH}", data=body) as response,
        ):
            answer = await response.read()
    except (TimeoutError, aiohttp.ClientError) as error:
        raise _ServiceError("runs and does not answer") from error
    if response.status != HTTPStatus.OK:
        raise _ServiceError("failed")
    return msgspec.json.decode(answer, type=Ended)


def _is_meant(record: TunnelRecord, order: Order) -> bool:
    return order.user_id == record.user_id or order.request_id == record.request_id.hex()
