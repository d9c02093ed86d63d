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
from threading import Event
from typing import BinaryIO

import msgspec
from sqlalchemy.exc import SQLAlchemyError
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from carnet.errors import CarnetError, IPsecError, UnreachableError
from carnet.files import private_directory, private_file
from carnet.ipsec.driver import Driver
from carnet.ipsec.drivers import made_with, makers, unit_of
from carnet.objectives import Objective
from carnet.portions import batched
from carnet.tunnel import tunnel_name
from carnet.worker import begun, together
from target_agent.config import TargetConfig
from target_agent.daemon_threads import AT_ONCE
from target_agent.downing import down, end_by_name
from target_agent.gate import make_gate
from target_agent.orders import Orders
from target_agent.records import Records, TunnelRecord

PATH = "/v1/end"
_SECONDS = 60
_WRITE_SECONDS = 2
"""For which an order is to be written down before the service is asked all the same."""
_STEP_SECONDS = 0.05


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """End one tunnel, or all of a user, for that reason."""

    reason: str
    request_id: str | None = None
    user_id: str | None = None


class Ended(msgspec.Struct, frozen=True):
    """The Request IDs of the tunnels that ended, and of those that wait for the IKE daemon.

    Or for the database: they are no more, and no record says so yet.
    """

    ended: tuple[str, ...]
    waiting: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()


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
        and no wake-up of it that is lost. Where it cannot be, or not soon, as where another
        process has the database's lock, the tunnels are ended all the same.

        Raises IPsecError if the IKE daemon does not answer, UnreachableError if the
        service runs and does not, CarnetError if no record says that they ended.
        """
        with sole_hold(self.config.lock) as alone:
            if alone:
                written = self._write_down(order, alone=True)
                done = self._end_here(written, order) if written.live else self._end_unknown(order)
            else:
                written, done = self._end_there(order)
        if done.waiting:
            raise IPsecError(self._waiting(done.waiting, written, alone=alone))
        if done.unrecorded:
            raise CarnetError(_unrecorded(len(done.unrecorded), alone=alone))
        return done.ended

    @contextlib.contextmanager
    def meanwhile(self, order: Order, slow: Callable[[], None]) -> Iterator[list[str]]:
        """Have tunnels end though what is done in here takes long, as with the database locked.

        Calls `slow` first. Gives the Request IDs of those that ended so, once it is left; what
        else is to be said of them, end() finds.
        """
        done, ended = Event(), list[str]()
        ending = begun(partial(self._end_if_slow, done, order, slow))
        try:
            yield ended
        finally:
            done.set()
            with contextlib.suppress(CarnetError, SQLAlchemyError):
                ended += ending.result()

    def _end_if_slow(self, done: Event, order: Order, slow: Callable[[], None]) -> tuple[str, ...]:
        if done.wait(_WRITE_SECONDS):
            return ()
        slow()
        with sole_hold(self.config.lock) as alone:
            if not alone:
                return end_by_service(self.config, order).ended
            live = [record for record in self.records.live() if _is_meant(record, order)]
            self._shut_gate(live)
            for _ in self._gone(live):
                pass  # end() asks for each again, and writes down what came of it
        return ()

    def _write_down(self, order: Order, *, alone: bool) -> "_Written":
        """Write down what is to end: a service that starts ends it.

        For one that runs also the order itself, which is about what it is just preparing too.
        """
        live = [record for record in self.records.live() if _is_meant(record, order)]
        try:
            for record in live:
                self.records.doom(record.request_id, order.reason)
            number = None if alone else self.orders.write(*_whom(order), order.reason)
        except SQLAlchemyError as error:
            return _Written(live, failure=str(getattr(error, "orig", None) or error))
        return _Written(live, number)

    def _end_there(self, order: Order) -> "tuple[_Written, Ended]":
        """Have the service end them, and those that it is just preparing.

        The order stays written down until it has.
        """
        tried = Event()
        asking = begun(partial(_ask_then, tried, self.config, order))
        try:
            # Here, and not on a thread of its own: only so does Ctrl-Z wait for it.
            written = self._write_down(order, alone=False)
        finally:
            tried.set()
        try:
            done = asking.result()
        except _ServiceError as error:
            raise UnreachableError(_unheard(str(error), written)) from error
        if written.number is not None:
            with contextlib.suppress(SQLAlchemyError):  # then the service strikes it out
                self.orders.obeyed(written.number)
        return written, done

    def _end_here(self, written: "_Written", order: Order) -> Ended:
        """End them without the service; it does at its start what cannot be done now."""
        live = written.live
        self._shut_gate(live)
        ended, waiting, unrecorded = [], [], []
        for record, gone in zip(live, self._gone(live), strict=True):
            name = record.request_id.hex()
            try:
                gone.result()
                self.records.end(record.request_id, record.end_reason or order.reason)
            except IPsecError:
                waiting.append(name)
            except SQLAlchemyError:
                unrecorded.append(name)
            else:
                ended.append(name)
        return Ended(ended=tuple(ended), waiting=tuple(waiting), unrecorded=tuple(unrecorded))

    def _end_unknown(self, order: Order) -> Ended:
        """End the tunnel of a Request ID of which no record says that it lives: one may be lost.

        Raises IPsecError where that may be so still.
        """
        name = order.request_id
        if name is None or not end_by_name(self.config, self.driver, name):
            return Ended(ended=())
        return Ended(ended=(name,))

    def _shut_gate(self, live: list[TunnelRecord]) -> None:
        """Shut the gate if one of these is let through by it; the service, once it runs, opens it.

        Who else is let through is known to that alone.
        """
        gate = make_gate(self.config)
        if gate is not None and any(record.objective_id == Objective.NATIVE for record in live):
            gate.shut()

    def _down(self, record: TunnelRecord) -> None:
        drivers = makers(record.driver, self.driver, self.config.drivers)
        down(drivers, tunnel_name(record.request_id))

    def _waiting(self, names: tuple[str, ...], written: "_Written", *, alone: bool) -> str:
        count, units = len(names), self._units(names, written.live)
        restart = "start it, or restart it if it runs"
        restart += f" (systemctl restart {units})" if units else ""
        if written.failure is not None:
            return (
                f"The IKE daemon does not answer, or refuses, and the order cannot be written down"
                f" ({written.failure}), so {count} of the tunnels may live on: {restart}, see that"
                f" the disk of the database has room, and run this again."
            )
        service = ", and start carnet-target after it" if alone else ""
        return (
            f"The IKE daemon does not answer, or refuses; {count} of the tunnels will end as soon"
            f" as it does what it is asked: {restart}{service}."
        )

    def _units(self, names: tuple[str, ...], live: list[TunnelRecord]) -> str:
        """Return what systemd starts the daemons of some tunnels as, where that is known."""
        recorded = [each for each in live if each.request_id.hex() in names]
        choice = self.config.drivers
        drivers = [made_with(each.driver, self.driver, choice) for each in recorded]
        drivers = drivers or [self.driver]
        return " ".join(sorted({unit for each in drivers if (unit := unit_of(each))}))

    def _gone(self, doomed: list[TunnelRecord]) -> "Iterator[Future[None]]":
        """Take them out side by side, as the service does: each may have to wait for its peer.

        Or for the daemon; where one of an earlier portion has, the others ask it briefly.
        """
        for some in batched(doomed, AT_ONCE):
            yield from together(partial(self._down, each) for each in some)


@dataclass(frozen=True)
class _Written:
    """What is live of what is to end, the order's number, and why not all is written down."""

    live: list[TunnelRecord]
    number: int | None = None
    failure: str | None = None


def _unheard(how: str, written: _Written) -> str:
    if written.failure is not None:
        return (
            f"The service carnet-target {how}, and the order cannot be written down"
            f" ({written.failure}): see that the disk of the database has room, restart the service"
            " (systemctl restart carnet-target), and run this again."
        )
    count = len(written.live)
    live = f"{count} of the tunnels that are live" if count else "none that is live"
    return (
        f"The service carnet-target {how}; the order is written down, for {live} and"
        " what is just being made, and is obeyed as the service looks at it or starts anew:"
        " restart it (systemctl restart carnet-target), and see its log."
    )


def _unrecorded(count: int, *, alone: bool) -> str:
    then = (
        "and run this again"
        if alone
        else "and the service carnet-target, whose log says more, writes that down by itself"
    )
    return (
        f"The database cannot be written: {count} of the tunnels ended, and it does not say so"
        f" yet; see that its disk has room, {then}."
    )


class _ServiceError(Exception):
    """What the service does instead of its work, to follow its name."""


def _ask_then(tried: Event, config: TargetConfig, order: Order) -> Ended:
    """Ask the service once it was tried to write the order down, or that takes too long."""
    tried.wait(_WRITE_SECONDS)
    return asyncio.run(_ask_service(config, order))


def end_by_service(config: TargetConfig, order: Order) -> Ended:
    """Have the service end what is meant of what it knows to live; raises UnreachableError."""
    try:
        return asyncio.run(_ask_service(config, order))
    except _ServiceError as error:
        raise UnreachableError(
            f"The service carnet-target {error}; restart it (systemctl restart carnet-target)."
        ) from error


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


def _whom(order: Order) -> tuple[bytes | None, str | None]:
    request_id = None if order.request_id is None else bytes.fromhex(order.request_id)
    return request_id, order.user_id


def _is_meant(record: TunnelRecord, order: Order) -> bool:
    return order.user_id == record.user_id or order.request_id == record.request_id.hex()
