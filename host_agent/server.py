"""The Host's Tunnel Agent as a service.

One path for requests, `POST /v1/requests`, and one request a connection. Whatever an
unauthenticated sender does wrong gets one and the same answer: the same bytes, 403 with
an empty body. `POST /v1/endings` tells whoever knows the Request ID of a tunnel, 16 random
bytes, what Target has signed of its end. `GET /v1/address` tells anybody the address that
he is seen at, and nothing else: no key, no database and no token has a part in it.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus

import structlog
from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bind_contextvars

from carnet import crash
from carnet.answers import FixedAnswer
from carnet.audit.keeper import HeadKeeper
from carnet.background import Background
from carnet.database.readers import ask
from carnet.errors import CarnetError, TokenAwayError, TokenError
from carnet.exchange import host as step
from carnet.exchange.machine import run_async
from carnet.link import check_name, client_context
from carnet.observers import observable
from carnet.service import Care, serve_until_stopped, serving
from carnet.token.session import TokenSession
from carnet.wire.envelope import parse_envelope
from carnet.wire.fault import WireError
from carnet.wire.suites import numbers_of
from host_agent import endings, officer_interface
from host_agent.admission import Admission
from host_agent.agreement import check_agreement
from host_agent.batch_file import officer_key
from host_agent.config import HostConfig
from host_agent.door import answer_to, door_rules, is_address_question, read_body, the_one_answer
from host_agent.exchange import Exchange, Parts, destroy_key, take_up
from host_agent.heads import head_keeper
from host_agent.hsm import open_hsm
from host_agent.hsm_service import HsmAwayError
from host_agent.keydb import ANSWER_KEPT, KeyDatabase, KeyStoreName, RequestRecord
from host_agent.keystore.stores import store_of
from host_agent.keystore.wrapped import burn_what_came_back, sweep_wrapped
from host_agent.leases import RENEW_SECONDS, Leases
from host_agent.marks import Marks
from host_agent.metrics import HostMetrics
from host_agent.observed import observed
from host_agent.officer_interface import OfficerInterface, interface_context
from host_agent.outcome import Busy
from host_agent.reloading import Reloading, follow_targets
from host_agent.rollback import ForgottenError, Witness, have_accounts_key, newest_seen
from host_agent.seen_before import aged_by_leap, is_too_late
from host_agent.split_batch import missing_host_keys
from host_agent.target_link import TargetLink

log = structlog.get_logger()

ANSWER_SECONDS = 18
"""After which whoever has no answer yet is told to come again; a Client gives up after 20."""
SHUTDOWN_SECONDS = 15
"""For requests to end in, and to be given back or cut off in afterwards."""
SWEEP_SECONDS = 60
UNSEEN_SECONDS = 5
"""At least so long after a key was not seen it is looked for again, as under an import."""
_FINISH = "Unless one runs, import its batch again, or run `carnet-host sweep`."
_LEAPT = (
    "The clock has leapt ahead: for a day no pair expires and no request is too late by it; set "
    "it, or restart the Host."
)
_UNFINISHED = (
    "The Key Database does not answer; see that it does. What is left is taken up then, by "
    "another process of the Host or at the next start."
)
_PATH = "/v1/requests"
_ENDINGS_PATH = "/v1/endings"
_REQUEST_ID_LENGTH = 16


class HostService:
    """The requests on their way, and what is done beside them."""

    def __init__(self, parts: Parts, background: Background | None = None) -> None:
        self.parts = parts
        self._tasks: set[asyncio.Task[None]] = set()
        self.background = background or Background(parts.metrics.count_failure)
        self._running = 0
        self._sweep_now = asyncio.Event()
        self._look_again: asyncio.TimerHandle | None = None
        self._look_over_hsm = True

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
        await asyncio.wait({exchange.outcome}, timeout=ANSWER_SECONDS)
        if not exchange.outcome.done():
            log.warning("answer-late", key_id=envelope.key_id.hex())
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
        outcome = await endings.ending_of(self.parts.database, self.parts.link, request_id)
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
                log.warning("leases-not-kept", reason=str(error))

    async def _take_up(self, requests: list[RequestRecord]) -> None:
        """Take each up, but refuse none by a clock that has leapt: nothing undoes that."""
        # At once: they say what the clock was when they were looked up.
        for request in [each for each in requests if not aged_by_leap(each, self.parts.clock)]:
            pair = await ask(self.parts.database.find_pair, request.key_id)
            if pair is not None and not self.parts.leases.holds(request.key_id):
                self._start(self._run(take_up(self.parts, pair.suite, request)))

    async def sweep(self) -> None:
        """Settle what nobody asks for any more, expire pairs, destroy keys; for ever."""
        while True:
            await self._sweep_once()
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._sweep_now.wait()
            self._sweep_now.clear()

    async def _sweep_once(self) -> None:
        """Do each part of it, whatever became of the others: no key is to outlive its use."""
        for part in (self.settle, self._end_by_clock, self._destroy_keys):
            try:
                await part()
            except SQLAlchemyError as error:
                log.warning("sweep-failed", reason=str(error))

    async def _end_by_clock(self) -> None:
        """Expire pairs and forget old answers, unless the clock has just leapt.

        Nothing undoes either, and an answer that its Client did not get costs her a pair.
        """
        now = await ask(self.parts.database.clock)
        leap = self.parts.clock.leap(now)
        if leap:
            log.warning("expiry-waits", ahead=leap, remedy=_LEAPT)
            return
        await asyncio.to_thread(self.parts.database.expire, now)
        crash.reach("host.expired")
        steady = self.parts.clock.steady_for >= ANSWER_KEPT
        await asyncio.to_thread(self.parts.database.drop_old_responses, now, ahead=steady)

    def hsm_returned(self) -> None:
        """Do what waited for the HSM: answers that were not sealed, keys not destroyed."""
        self._look_over_hsm = True
        self._sweep_now.set()
        self._start(self.take_up_unanswered())

    def key_unseen(self, seconds: float) -> None:
        """Sweep in so many seconds, when a key that is to be destroyed can be looked for again."""
        if self._look_again is None:
            loop, pause = asyncio.get_running_loop(), max(seconds, UNSEEN_SECONDS)
            self._look_again = loop.call_later(pause, self._sweep_again)

    def _sweep_again(self) -> None:
        self._look_again = None
        self._sweep_now.set()

    async def _destroy_keys(self) -> None:
        """Destroy what this HSM still owes, and after a login what should not be there.

        What is kept wrapped needs no HSM to be burned.
        """
        parts, database = self.parts, self.parts.database
        for key_id in await ask(database.keys_to_destroy, parts.hsm.serial):
            pair = await ask(database.find_pair, key_id)
            try:
                if pair is not None:
                    await destroy_key(self.parts, pair)
            except HsmAwayError:
                continue
            except TokenError as error:
                log.warning("key-not-destroyed", key_id=key_id.hex(), reason=str(error))
        if self._look_over_hsm:
            with suppress(TokenError):
                await burn_what_came_back(database, parts.hsm)
                await self._destroy_unwanted()
                self._look_over_hsm = False
        await sweep_wrapped(database, parts.hsm)

    async def _destroy_unwanted(self) -> None:
        """Destroy what the HSM holds and nothing wants there; raises TokenError."""
        parts, on_token = self.parts, store_of(KeyStoreName.TOKEN)
        held = await parts.hsm.held()
        for key_id in await ask(parts.database.unwanted, held):
            await on_token.burn(parts.database, parts.hsm, key_id)
        serial = parts.hsm.serial or ""
        left = await ask(parts.database.unfinished_keys, serial, held)
        if left:
            log.warning("import-not-finished", serial=serial, keys=len(left), remedy=_FINISH)

    @property
    def under_way(self) -> int:
        """How many requests are on their way."""
        return self._running

    async def stop(self) -> None:
        """End what runs beside the requests; what is durable is taken up at the next start."""
        await self.background.stop()
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
            log.warning(_name_of(error), key_id=envelope.key_id.hex(), reason=str(error))
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


async def serve(config: HostConfig, pin: str, load: Callable[[], HostConfig]) -> None:
    """Serve until told to stop; raises CarnetError where it cannot start.

    `load` reads the configuration again.
    """
    context = client_context(config.link)
    check_name(config.link, "host", config.name)
    officer_key(config.officer)
    with KeyDatabase.opened(config.key_database) as database:
        await asyncio.to_thread(check_agreement, database)
        await _serve(config, pin, database, context, load)


async def _serve(
    config: HostConfig,
    pin: str,
    database: KeyDatabase,
    context: ssl.SSLContext,
    load: Callable[[], HostConfig],
) -> None:
    witness = Witness(database)
    metrics = HostMetrics()
    background = Background(metrics.count_failure)
    check = partial(_check_hsm, database, witness, config.name)
    async with open_hsm(config.token, pin, check, background) as hsm:
        marks = Marks(hsm, witness, config.name)
        link = TargetLink(config.targets, context)
        leases = Leases(database)
        admission = Admission(config.limits)
        suites = numbers_of(config.suites)
        parts = Parts(database, hsm, link, leases, admission, suites, metrics)
        service = HostService(parts, background)
        hsm.on_return = service.hsm_returned
        hsm.on_unseen = service.key_unseen
        heads = head_keeper(config.name, database, hsm, marks)
        try:
            await service.take_up_unanswered()
            background.start("sweep", service.sweep)
            background.start("leases", service.keep_leases)
            follow_targets(service, tuple(config.targets))
            background.start("signed accounts", heads.run)
            runner = web.ServerRunner(service.server(), shutdown_timeout=SHUTDOWN_SECONDS)
            rules = door_rules(config.limits)
            interface = OfficerInterface(config, database, hsm, heads.sign_newest)
            seen = observed(service, parts)
            care = Care(seen.failed, Reloading(config, load, service, context).take_over)
            async with _officers_door(config, interface), observable(seen, config.observers):
                await serve_until_stopped(runner, rules, config.listen, config.port, care)
        finally:
            await _end(service, heads)
            await link.close()


async def _end(service: HostService, heads: HeadKeeper) -> None:
    """End what goes on, and sign the accounts, unless the database does not answer."""
    try:
        async with asyncio.timeout(SHUTDOWN_SECONDS):
            await service.stop()
            await heads.sign_newest()
    except TimeoutError:
        log.warning("stopped-unfinished", remedy=_UNFINISHED)


def _check_hsm(database: KeyDatabase, witness: Witness, agent: str, session: TokenSession) -> None:
    """Let the HSM serve this Key Database, or raise CarnetError; tell what pairs it cannot.

    TokenAwayError where the database fails: the login is tried again.
    """
    try:
        _compare(witness, agent, session)
        _look_over(database, session)
    except SQLAlchemyError as error:
        raise TokenAwayError(
            "The Key Database, with which the HSM is compared, does not answer; it is tried again."
        ) from error


def _compare(witness: Witness, agent: str, session: TokenSession) -> None:
    """Compare what the HSM remembers, and tell it what it missed as it was away."""
    head = newest_seen(session)
    try:
        witness.compare(head)
    except (ForgottenError, SQLAlchemyError) as error:
        if witness.knows_more(head, error):
            with suppress(TokenError):
                witness.tell(session, agent)
        raise


def _look_over(database: KeyDatabase, session: TokenSession) -> None:
    have_accounts_key(database, session)
    for key_id, pairs in missing_host_keys(database, session).items():
        log.warning(
            "host-key-missing",
            host_key=key_id.hex(),
            valid_pairs=pairs,
            remedy="Their requests get 503 here; put the HSM back that has it, or revoke them "
            "and have others minted for the keys of `carnet-host host-keys`.",
        )


@asynccontextmanager
async def _officers_door(config: HostConfig, interface: OfficerInterface) -> AsyncIterator[None]:
    """Serve the officer's interface too, where it is configured."""
    section = config.interface
    if section is None:
        yield
        return
    runner = web.ServerRunner(interface.server())
    context = interface_context(section, config)
    rules = officer_interface.door_rules()
    try:
        async with serving(runner, rules, section.listen, section.port, context):
            yield
    finally:
        await interface.stop()
