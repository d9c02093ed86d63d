"""The officer's interface: batches, revocations and counts, over mutually authenticated TLS 1.3.

Only she gets in, and she is who shows the registered certificate itself: one that she
issued, to a Host or a Target, is not hers. Whoever else comes gets one and the same answer.
"""

import asyncio
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http import HTTPStatus
from io import FileIO
from typing import Any, TypeVar

import msgspec
import structlog
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import structs
from sqlalchemy.exc import SQLAlchemyError

from carnet import crash
from carnet.answers import FixedAnswer
from carnet.audit.chain import ChangedError
from carnet.database.readers import ask
from carnet.doors import DoorRules
from carnet.errors import NothingRevokedError, RefusedError, TokenError, UsageError
from carnet.files import private_directory
from carnet.interface import (
    BATCHES,
    MAX_REVOCATION,
    PAIRS,
    REVOCATIONS,
    Received,
    Refused,
    Revoked,
    decode_revocation,
)
from carnet.interface import Revocation as Wanted
from carnet.link import LinkSection, read_at_most, server_context
from carnet.progress import no_bar
from carnet.threads import Threads
from carnet.token.session import TokenSession
from carnet.wire.documents import MAX_BATCH
from carnet.wire.envelope import SPLIT
from host_agent.arrival import WAIT_SECONDS, NotArrivedError, arriving
from host_agent.batch_file import BatchFile, officer_certificate, open_batch
from host_agent.config import HostConfig, InterfaceSection
from host_agent.hsm import Hsm
from host_agent.importing import alone, other_store, store_for, take_in
from host_agent.in_time import SilentError, is_over, unless_silent
from host_agent.keydb import KeyDatabase, Reason, Revocation
from host_agent.revoked_meanwhile import check_not_revoked, revoked_of_it, under_way
from host_agent.revoking import Revoked as Revocations
from host_agent.revoking import revoke, revoke_known, revoked_before

log = structlog.get_logger()
T = TypeVar("T")

_revoking = Threads(4, "revoking").do
"""Those who revoke may wait for a batch to arrive: no request waits for them."""

PIECE_SECONDS = 30
"""In which the next piece of a body must come."""
BODY_SECONDS = 900
_STOP_SECONDS = 5
"""In which the Key Database must answer for an import to be waited for at the end."""
_PIECE = 64 * 1024
_MAX_FILE = MAX_BATCH + 1024
"""The payload, and what is around it."""
_BUSY = "Another import runs; wait until it is over."
_AWAY = (
    "The Key Database does not answer, and what was begun may yet be done; have the Host's "
    "operator see to it, then send it again."
)
_UNFINISHED = (
    "The Key Database does not answer; see that it does, and have the officer send the batch again."
)


def door_rules() -> DoorRules:
    """Return what those who connect may do; there is one officer."""
    return DoorRules(refusal=refusal, connections=16, per_address=8, idle_seconds=10)


def refusal() -> FixedAnswer:
    """Return what everybody gets who is not the officer."""
    return FixedAnswer(HTTPStatus.FORBIDDEN)


def interface_context(section: InterfaceSection, config: HostConfig) -> ssl.SSLContext:
    """Return the TLS side of the Host: the officer's certificate is the authority."""
    return server_context(
        LinkSection(certificate=section.certificate, key=section.key, authority=config.officer)
    )


class _ServiceToken:
    """The HSM token as an import beside the requests has it: they come in between."""

    def __init__(self, hsm: Hsm, loop: asyncio.AbstractEventLoop) -> None:
        self._hsm, self._loop = hsm, loop

    def use(self, work: Callable[[TokenSession], T]) -> T:
        return self._wait(self._hsm.use_session(work))

    def renew(self) -> None:
        self._wait(self._hsm.renew())

    @contextmanager
    def kept_open(self, batch: BatchFile, database: KeyDatabase) -> Iterator[None]:
        """Keep the session, where the import agrees on keys in it.

        Before that all keys are seen that others may ask for. Meanwhile no more become theirs:
        no other import runs.
        """
        if batch.head.custody == SPLIT:
            yield
            return
        with self._hsm.kept_open():
            self._wait(self._hsm.see(database.keys_in_use(self._hsm.serial or "")))
            yield

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class OfficerInterface:
    """The three paths of the interface."""

    def __init__(
        self,
        config: HostConfig,
        database: KeyDatabase,
        hsm: Hsm,
        sign_accounts: Callable[[], Awaitable[None]],
    ) -> None:
        self._config, self._database, self._hsm = config, database, hsm
        self._sign_accounts = sign_accounts
        self._officer = officer_certificate(config.officer).public_bytes(Encoding.DER)
        self._busy = False
        self._written_down = asyncio.Event()
        """Not set while a batch is here of which no revocation would know. By any other process
        they wait for a lock, which is had a moment later."""
        self._written_down.set()
        self._importing: asyncio.Task[Received] | None = None
        self._paths = {
            ("POST", BATCHES): self._batch,
            ("POST", REVOCATIONS): self._revoke,
            ("GET", PAIRS): self._count,
        }

    def server(self) -> web.Server:
        """Return what aiohttp serves."""
        return web.Server(self.handle)

    async def stop(self) -> None:
        """Wait until an import that runs is over, as long as the Key Database answers."""
        if self._importing is None:
            return
        if not await is_over(self._importing, self._database, _STOP_SECONDS):
            log.warning("import-unfinished", remedy=_UNFINISHED)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the officer, and nobody else."""
        if not self._is_officer(request):
            log.warning("not-the-officer", address=request.remote)
            return refusal()
        work = self._paths.get((request.method, request.rel_url.raw_path))
        if work is None or "Expect" in request.headers:
            return FixedAnswer(HTTPStatus.NOT_FOUND)
        try:
            return _answer(HTTPStatus.OK, await work(request))
        except (ConnectionError, TimeoutError, web.RequestPayloadError) as error:
            log.warning("officer-cut-off", reason=str(error) or type(error).__name__)
            return FixedAnswer(HTTPStatus.BAD_REQUEST)
        except OSError as error:
            log.warning("officer-not-served", reason=str(error))
            return _answer(HTTPStatus.INSUFFICIENT_STORAGE, Refused(reason=_no_room(error)))
        except _FAILURES as error:
            status, reason = _explain(error)
            log.warning("officer-refused", status=status.value, reason=str(error))
            return _answer(status, Refused(reason=reason))

    def _is_officer(self, request: web.BaseRequest) -> bool:
        tls: Any = request.transport.get_extra_info("ssl_object") if request.transport else None
        return tls is not None and tls.getpeercert(binary_form=True) == self._officer

    async def _batch(self, request: web.BaseRequest) -> Received:
        """Take a batch: into a file without a name first, then as `carnet-host import` does."""
        if self._busy:
            raise UsageError(_BUSY)
        if (request.content_length or 0) > _MAX_FILE:
            raise _TooLongError
        self._busy = True
        try:
            where = private_directory(self._config.directory)
            spool = tempfile.TemporaryFile(dir=where, buffering=0)  # noqa: SIM115
            try:
                await _receive(request, spool)
            except BaseException:
                spool.close()
                raise
            self._written_down.clear()
            # It goes on if the officer hangs up, and if this process is told to stop.
            self._importing = asyncio.create_task(self._take_in(spool))
            self._importing.add_done_callback(self._over)
        except BaseException:
            self._busy = False
            raise
        return await unless_silent(self._importing, self._database)

    def _over(self, _: asyncio.Task[Received]) -> None:
        self._busy = False
        self._written_down.set()

    async def _take_in(self, spool: FileIO) -> Received:
        loop = asyncio.get_running_loop()
        token = _ServiceToken(self._hsm, loop)
        written_down = partial(loop.call_soon_threadsafe, self._written_down.set)
        with spool:
            batch, new = await asyncio.to_thread(self._import, spool, token, written_down)
        if new:
            await self._sign_accounts()
        await ask(check_not_revoked, batch, self._database)
        if remark := await ask(revoked_of_it, batch, self._database):
            log.warning("revoked-while-imported", user_id=batch.head.user_id, reason=remark)
        received = Received(user_id=batch.head.user_id, pairs=batch.count, new=new)
        log.info("batch-received", user_id=received.user_id, new=new)
        return received

    def _import(
        self, spool: FileIO, token: _ServiceToken, written_down: Callable[[], object]
    ) -> tuple[BatchFile, int]:
        with alone(self._database) as still_alone, ExitStack() as begun:
            with arriving(self._database):
                batch = open_batch(spool, "The batch", self._config)
                begun.enter_context(under_way(batch, self._database))
            written_down()
            crash.reach("interface.verified")
            batch.check_pairs()
            return batch, self._taken(batch, token, still_alone)

    def _taken(
        self, batch: BatchFile, token: _ServiceToken, still_alone: Callable[[], None]
    ) -> int:
        with token.kept_open(batch, self._database):
            store = store_for(batch, self._database, self._config)
            if remark := other_store(batch, store, self._config):
                log.warning("other-key-store", user_id=batch.head.user_id, remedy=remark)
            return take_in(
                batch,
                token,
                self._database,
                store,
                no_bar,
                still_alone=still_alone,
                received=True,
            )

    async def _revoke(self, request: web.BaseRequest) -> Revoked:
        async with asyncio.timeout(PIECE_SECONDS):
            body = await read_at_most(request.content, MAX_REVOCATION)
        if len(body) > MAX_REVOCATION:
            raise _TooLongError
        wanted = decode_revocation(body)
        return await unless_silent(self._revoked(wanted), self._database)

    async def _revoked(self, wanted: Wanted) -> Revoked:
        reason = Reason.LOST if wanted.lost else Reason.REVOKED
        revocation = Revocation(wanted.why, reason, by="officer")
        known = Revocations([], 0, 0)
        if not self._written_down.is_set():
            # What is here by then is among what it concerns, and what is known waits for nothing.
            known = await _revoking(revoke_known, self._database, revocation, **wanted.names)
            await self._have_written_down()
        done = known.and_then(await _revoking(revoke, self._database, revocation, **wanted.names))
        await ask(revoked_before, self._database, done, **wanted.names)
        told = Revoked(revoked=len(done.key_ids), importing=done.importing, tunnels=done.tunnels)
        log.info("officer-revoked", **structs.asdict(told))
        return told

    async def _have_written_down(self) -> None:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._written_down.wait()
        except TimeoutError as error:
            raise NotArrivedError from error

    async def _count(self, _: web.BaseRequest) -> list[dict[str, object]]:
        counts = await unless_silent(ask(self._database.count), self._database)
        return [vars(count) for count in counts]


class _TooLongError(Exception):
    """More bytes than a body may have."""

    def __str__(self) -> str:
        return f"It is longer than {_MAX_FILE} bytes, or what its path allows."


def _no_room(error: OSError) -> str:
    return (
        f"The Host cannot write what it was sent ({error.strerror or error}); have its operator "
        f"see to the disk of its directory, then send it again."
    )


_FAILURES = (
    RefusedError, UsageError, TokenError, SQLAlchemyError, SilentError, ValueError, _TooLongError,
)  # fmt: skip


def _explain(error: Exception) -> tuple[HTTPStatus, str]:
    match error:
        case RefusedError():
            return HTTPStatus.UNPROCESSABLE_ENTITY, error.sentence
        case UsageError():
            unknown = isinstance(error, NothingRevokedError)
            return HTTPStatus.NOT_FOUND if unknown else HTTPStatus.CONFLICT, error.sentence
        case TokenError() | ChangedError():
            return HTTPStatus.SERVICE_UNAVAILABLE, error.sentence
        case SQLAlchemyError() | SilentError():
            return HTTPStatus.SERVICE_UNAVAILABLE, _AWAY
        case _TooLongError():
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)
        case _:
            return HTTPStatus.BAD_REQUEST, f"It is no revocation: {error}."


async def _receive(request: web.BaseRequest, spool: FileIO) -> None:
    """Write the body to the file; raises OSError and RequestPayloadError where it does not come."""
    size = 0
    async with asyncio.timeout(BODY_SECONDS):
        while True:
            async with asyncio.timeout(PIECE_SECONDS):
                piece = await request.content.read(_PIECE)
            if not piece:
                return
            size += len(piece)
            if size > _MAX_FILE:
                raise _TooLongError
            await asyncio.to_thread(_write, spool, piece)


def _write(spool: FileIO, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[spool.write(left) :]


def _answer(status: HTTPStatus, content: object) -> web.Response:
    response = web.Response(
        status=status.value, body=msgspec.json.encode(content), content_type="application/json"
    )
    response.force_close()
    response.headers["Server"] = "carnet"
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "2"
    return response
