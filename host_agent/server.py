"""The Host's Tunnel Agent as a service.

One path for requests, `POST /v1/requests`, and one request a connection. Whatever an
unauthenticated sender does wrong gets one and the same answer: the same bytes, 403 with
an empty body. `POST /v1/endings` tells whoever knows the Request ID of a tunnel, 16 random
bytes, what Target has signed of its end. `GET /v1/address` tells anybody the address that
he is seen at, and nothing else: no key, no database and no token has a part in it.
"""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus

import structlog
from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bind_contextvars

from carnet.answers import FixedAnswer
from carnet.background import Background
from carnet.database import reason_of
from carnet.database.readers import ask
from carnet.errors import CarnetError, TokenError
from carnet.exchange import host as step
from carnet.exchange.machine import run_async
from carnet.wire.envelope import parse_envelope
from carnet.wire.fault import WireError
from host_agent import in_time
from host_agent.door import answer_to, is_address_question, read_body, the_one_answer
from host_agent.endings import Endings
from host_agent.exchange import Exchange, Parts, take_up
from host_agent.keydb import ANSWER_KEPT, RequestRecord
from host_agent.leases import RENEW_SECONDS
from host_agent.outcome import Busy, Later
from host_agent.seen_before import aged_by_leap, is_too_late
from host_agent.sweeping import Sweep

log = structlog.get_logger()

_PATH = "/v1/requests"
_ENDINGS_PATH = "/v1/endings"
_REQUEST_ID_LENGTH = 16


class HostService:
    """The requests on their way, and what is done beside them."""

    def __init__(self, parts: Parts, background: Background | None = None) -> None:
        self.parts = parts
        self._tasks: set[asyncio.Task[None]] = set()
        self.background = background or Background(
            parts.metrics.count_failure, parts.metrics.expect_failures
        )
        self.sweep = Sweep(parts, self.settle)
        self._endings = Endings()
        self._running = 0

    def server(self) -> web.Server:
        """Return what aiohttp serves.

        Its low-level server: a router and its middlewares answer some mistakes in words
        of their own, before anything of ours is asked.
        """
        return web.Server(self.handle)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one sealed request, or a question for the address that is seen here."""
        if is_address_question(request):
            return self._tell_address(request.remote or "")
        if (request.method, request.raw_path) == ("POST", _ENDINGS_PATH):
            return await self._tell_ending(request)
        try:
            envelope = parse_envelope(await read_body(request, _PATH))
        except (WireError, OSError, web.RequestPayloadError) as error:
            log.info("rejected", reason=str(error) or type(error).__name__)
            self.parts.metrics.count_request("rejected")
            return the_one_answer()
        exchange = Exchange(self.parts, envelope, request.remote or "")
        self._start(self._run(exchange))
        # The exchange goes on if the Client hangs up, or is told to come again: the pair may be
        # spent already.
        await asyncio.wait({exchange.outcome}, timeout=in_time.ANSWER_SECONDS)
        if not exchange.outcome.done():
            log.warning("answer-late", key_id=envelope.key_id.hex(), **exchange.names)
            exchange.fail(step.NOT_READY)
        return answer_to(await exchange.outcome)

    def _tell_address(self, address: str) -> web.StreamResponse:
        """Tell a Client where it is seen, from which it knows whether there is NAT."""
        seconds = self.parts.admission.look(address)
        if seconds is not None:
            return answer_to(Busy(seconds))
        return FixedAnswer(HTTPStatus.OK, {"Content-Type": "text/plain"}, address.encode("ascii"))

    async def _tell_ending(self, request: web.BaseRequest) -> web.StreamResponse:
        """Tell the traveller what Target has signed for her of her tunnel's end."""
        try:
            request_id = await read_body(request, _ENDINGS_PATH)
        except (WireError, OSError, web.RequestPayloadError) as error:
            log.info("rejected", reason=str(error) or type(error).__name__)
            return the_one_answer()
        if len(request_id) != _REQUEST_ID_LENGTH:
            return the_one_answer()
        seconds = self.parts.admission.look(request.remote or "")
        if seconds is not None:
            return answer_to(Busy(seconds))
        try:
            async with asyncio.timeout(in_time.ANSWER_SECONDS):
                outcome = await self._endings.ending_of(
                    self.parts.database, self.parts.link, request_id
                )
        except TimeoutError:
            log.warning("answer-late", request_id=request_id.hex())
            outcome = Later(step.NOT_READY)
        return answer_to(outcome)

    async def take_up_unanswered(self) -> None:
        """Go on with requests that a crash or a silent Target left."""
        await self._take_up(await ask(self.parts.database.unanswered))

    async def settle(self) -> None:
        """Refuse those of them that are too old to be passed on."""
        old = await ask(self.parts.database.unanswered, ANSWER_KEPT)
        await self._take_up([each for each in old if is_too_late(each, self.parts.clock)])

    async def keep_leases(self) -> None:
        """Renew this process's leases, and take up where another's ran out; for ever."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self.parts.leases.renew()
                await self._take_up(await ask(self.parts.database.abandoned))
            except SQLAlchemyError as error:
                log.warning("leases-not-kept", reason=reason_of(error))

    async def _take_up(self, requests: list[RequestRecord]) -> None:
        """Take each up, but refuse none by a clock that has leapt: nothing undoes that."""
        # At once: they say what the clock was when they were looked up.
        for request in [each for each in requests if not aged_by_leap(each, self.parts.clock)]:
            pair = await ask(self.parts.database.find_pair, request.key_id)
            if pair is not None and not self.parts.leases.holds(request.key_id):
                self._start(self._run(take_up(self.parts, pair.suite, request)))

    def hsm_returned(self) -> None:
        """Do what waited for the HSM: answers that were not sealed, keys not destroyed."""
        self.sweep.hsm_returned()
        self._start(self.take_up_unanswered())

    @property
    def under_way(self) -> int:
        """How many requests are on their way."""
        return self._running

    async def stop(self) -> None:
        """End what runs beside the requests; what is durable is taken up at the next start."""
        await self.background.stop()
        await self._endings.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, exchange: Exchange) -> None:
        envelope, machine = exchange.envelope, step.machine()
        bind_contextvars(key_id=envelope.key_id.hex())
        self._running += 1
        try:
            try:
                await run_async(machine, step.Arrived(envelope), exchange.perform)
            finally:
                await exchange.release()
        except (CarnetError, SQLAlchemyError) as error:
            log.warning(_name_of(error), key_id=envelope.key_id.hex(), reason=reason_of(error))
            exchange.fail(step.NOT_READY)
        except Exception:
            log.exception("exchange-failed", key_id=envelope.key_id.hex(), state=machine.state)
            exchange.fail(step.NOT_READY)
        finally:
            self._running -= 1
            exchange.give_up_place()

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task-failed", exc_info=error)


def _name_of(error: Exception) -> str:
    if isinstance(error, TokenError):
        return "hsm-failed"
    return "database-failed" if isinstance(error, SQLAlchemyError) else "request-failed"
