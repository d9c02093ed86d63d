"""The Target on the Host-Target link (steps 3 and 6): HTTP over mutual TLS 1.3.

Which Host asks is what its certificate says, and nothing else.
"""

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from sqlalchemy.exc import SQLAlchemyError

from carnet import crash
from carnet.database import reason_of
from carnet.ending import prove_ending
from carnet.errors import TokenError
from carnet.link import peer_name, read_at_most
from carnet.wire import cbor
from carnet.wire.control import MAX_CONTROL, EndedTunnels, TunnelGrant, TunnelRequest
from carnet.wire.documents import DOCUMENT_VERSION, Ending
from carnet.wire.fault import WireError
from target_agent.agent import Agent
from target_agent.agent import Ending as Outcome
from target_agent.answering import Answering
from target_agent.evidence import claimed_request_id
from target_agent.link_key import LinkKey
from target_agent.records import TunnelRecord

log = structlog.get_logger()

POLL_SECONDS = 25.0
"""For how long a Host's question for ended tunnels is kept open."""
ENDING_SECONDS = 1.0
"""For how long a question why a tunnel ended waits until it has."""
RETRY_AFTER_SECONDS = "2"
_MAX_NUMBER = 2**53
_REQUEST_ID = re.compile(r"[0-9a-f]{32}")
_NUMBER = re.compile(r"[0-9]{1,16}")

Handler = Callable[[web.Request, str], Awaitable[web.StreamResponse]]


class Server:
    """The paths of the link."""

    def __init__(self, agent: Agent, key: LinkKey) -> None:
        self._agent = agent
        self.key = key

    def application(self) -> web.Application:
        """Return what aiohttp serves."""
        application = web.Application(middlewares=[_without_words])
        application.on_response_prepare.append(_hide_server)
        application.router.add_post("/v1/tunnels", _for_hosts(self.open))
        application.router.add_get("/v1/ended", _for_hosts(self.ended))
        application.router.add_delete("/v1/tunnels/{request_id}", _for_hosts(self.revoke))
        application.router.add_get("/v1/tunnels/{request_id}/ending", _for_hosts(self.ending))
        application.on_shutdown.append(self._wake)
        return application

    async def open(self, request: web.Request, host: str) -> web.StreamResponse:
        """Answer a Host that passes a user on."""
        body = await read_at_most(request.content, MAX_CONTROL)
        try:
            statement = cbor.unpack(body, TunnelRequest, MAX_CONTROL)
            answering = await self._agent.answer(statement, host)
        except SQLAlchemyError as error:
            return _database_failed(error, host, claimed_request_id(statement))
        except WireError as error:
            log.warning("not-understood", host=host, reason=str(error))
            self._agent.metrics.count_request("not-understood")
            return web.Response(status=HTTPStatus.BAD_REQUEST)
        if answering.answer is None:
            return _later()
        response = _answer(answering)
        await response.prepare(request)
        await response.write_eof()
        crash.reach("target.replied")
        return response

    async def ended(self, request: web.Request, host: str) -> web.StreamResponse:
        """Tell a Host which of its tunnels ended, as soon as one does."""
        number = request.query.get("after", "")
        if not (_NUMBER.fullmatch(number) and int(number) < _MAX_NUMBER):
            return web.Response(status=HTTPStatus.BAD_REQUEST)
        try:
            tunnels = await self._agent.ended(host, int(number), POLL_SECONDS)
        except SQLAlchemyError as error:
            return _database_failed(error, host)
        body = cbor.pack(EndedTunnels(tunnels=tunnels))
        return web.Response(body=body, content_type="application/cbor")

    async def ending(self, request: web.Request, host: str) -> web.StreamResponse:
        """Sign why a tunnel of a Host ended, for its traveller; wait a little for its end.

        One that has yet to end does not live: on a slow machine that takes its time.
        """
        request_id = _request_id(request)
        if request_id is None:
            return web.Response(status=HTTPStatus.BAD_REQUEST)
        try:
            record = await self._agent.end_of(host, request_id, ENDING_SECONDS)
        except SQLAlchemyError as error:
            return _database_failed(error, host, request_id)
        if record is None and self._agent.is_ending(host, request_id):
            return _later()
        if record is None:
            return web.Response(status=HTTPStatus.NOT_FOUND)
        try:
            body = _prove(record, self.key)
        except TokenError as error:
            log.warning("ending-not-signed", request_id=request_id.hex(), reason=error.sentence)
            return web.Response(status=HTTPStatus.NOT_FOUND)
        return web.Response(body=body, content_type="application/cbor")

    async def revoke(self, request: web.Request, host: str) -> web.StreamResponse:
        """End a tunnel of a Host that wants it ended."""
        request_id = _request_id(request)
        if request_id is None:
            return web.Response(status=HTTPStatus.BAD_REQUEST)
        ending = await self._agent.end(request_id, "revoked", host=host)
        return web.Response(status=_ENDINGS[ending])

    async def _wake(self, _: web.Application) -> None:
        await self._agent.stop_telling()


_ENDINGS = {
    Outcome.DONE: HTTPStatus.NO_CONTENT,
    Outcome.WAITING: HTTPStatus.ACCEPTED,
    Outcome.UNWRITTEN: HTTPStatus.SERVICE_UNAVAILABLE,
    Outcome.UNRECORDED: HTTPStatus.SERVICE_UNAVAILABLE,
    Outcome.NOT_LIVE: HTTPStatus.NOT_FOUND,
}


def _later() -> web.Response:
    headers = {"Retry-After": RETRY_AFTER_SECONDS}
    return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, headers=headers)


def _database_failed(
    error: SQLAlchemyError, host: str, request_id: bytes | None = None
) -> web.Response:
    """Name the request in the log, where it is about one, and have Host ask again."""
    named = {} if request_id is None else {"request_id": request_id.hex()}
    log.bind(host=host, **named).warning("database-failed", reason=reason_of(error))
    return _later()


def _request_id(request: web.Request) -> bytes | None:
    text = request.match_info["request_id"]
    return bytes.fromhex(text) if _REQUEST_ID.fullmatch(text) else None


def _prove(record: TunnelRecord, key: LinkKey) -> bytes:
    """Return the signed end of a tunnel; raises TokenError if the link's key cannot sign."""
    ending = Ending(
        version=DOCUMENT_VERSION,
        request_id=record.request_id,
        reason=record.end_reason or "ended",
        ended_at=record.ended_at or 0,
    )
    return prove_ending(ending, key.sign, key.certificate, key.authority)


@web.middleware
async def _without_words(request: web.Request, handler: Any) -> web.StreamResponse:
    """Keep the status of what the library itself refuses, and drop its words."""
    try:
        response: web.StreamResponse = await handler(request)
    except web.HTTPException as refusal:
        return web.Response(status=refusal.status)
    return response


async def _hide_server(_: web.Request, response: web.StreamResponse) -> None:
    """Tell nobody what serves here."""
    response.headers["Server"] = "carnet"


def _for_hosts(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Serve none but a peer whose certificate names one Host."""

    async def handle(request: web.Request) -> web.StreamResponse:
        host = peer_name(request.transport) if request.transport else None
        if host is None:
            return web.Response(status=HTTPStatus.FORBIDDEN)
        return await handler(request, host)

    return handle


def _answer(answering: Answering) -> web.Response:
    if answering.answer is None:
        raise TypeError("nothing to answer with")
    response = web.Response(body=cbor.pack(answering.answer), content_type="application/cbor")
    if isinstance(answering.answer, TunnelGrant) and answering.timings:
        response.headers["Server-Timing"] = ", ".join(
            f"{name};dur={milliseconds:.1f}" for name, milliseconds in answering.timings.items()
        )
    return response
