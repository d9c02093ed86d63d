"""The Host's door to strangers: what may come in by it in HTTP, and how that is answered."""

import asyncio
from http import HTTPStatus

from aiohttp import web

from carnet.answers import FixedAnswer
from carnet.doors import Connection, DoorRules
from carnet.link import read_at_most
from carnet.wire.cbor import MAX_MESSAGE
from carnet.wire.fault import Fault, WireError
from host_agent.config import LimitsSection
from host_agent.outcome import Answered, Busy, Later, Outcome, Rejected

BODY_SECONDS = 10
"""In which a request must have arrived."""
CONNECTION_SECONDS = 60
"""In which a connection must have had its answer, and have taken it."""
RETRY_AFTER_SECONDS = "2"
_ADDRESS_PATH = "/v1/address"


def door_rules(section: LimitsSection) -> DoorRules:
    """Return what strangers who connect may do."""
    return DoorRules(
        refusal=the_one_answer,
        connections=section.connections,
        per_address=section.connections_per_address,
        idle_seconds=BODY_SECONDS,
        life_seconds=CONNECTION_SECONDS,
    )


def the_one_answer() -> FixedAnswer:
    """Return what strangers get, whatever it was that they did wrong."""
    return FixedAnswer(HTTPStatus.FORBIDDEN)


def is_address_question(request: web.BaseRequest) -> bool:
    """Whether it is exactly that: no body, nothing asked for and nothing expected besides."""
    return (
        (request.method, request.raw_path) == ("GET", _ADDRESS_PATH)
        and not request.body_exists
        and "Expect" not in request.headers
    )


async def read_body(request: web.BaseRequest, path: str) -> bytes:
    """Return the body of what may be sent to that path.

    Raises WireError for another path, method or expectation, TimeoutError and
    RequestPayloadError for a body that does not come, or not whole.
    """
    if (request.method, request.rel_url.raw_path) != ("POST", path):
        raise WireError(Fault.FRAMING, "another path or method")
    if "Expect" in request.headers:
        raise WireError(Fault.FRAMING, "an expectation")
    async with asyncio.timeout(BODY_SECONDS):
        body = await read_at_most(request.content, MAX_MESSAGE)
    if isinstance(request.protocol, Connection):
        request.protocol.heard = True
    return body


def answer_to(outcome: Outcome) -> web.StreamResponse:
    """Return what the sender is answered to what came of his request."""
    match outcome:
        case Answered(response, timing):
            headers = {"Server-Timing": timing} if timing else {}
            return _last(
                web.Response(body=response, content_type="application/cbor", headers=headers)
            )
        case Later(reason):
            headers = {"Retry-After": RETRY_AFTER_SECONDS, "Carnet-Reason": reason}
            return FixedAnswer(HTTPStatus.SERVICE_UNAVAILABLE, headers)
        case Busy(seconds):
            return FixedAnswer(HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": str(seconds)})
        case Rejected():
            return the_one_answer()


def _last(response: web.Response) -> web.Response:
    """Have the connection end with this answer, and tell nobody what serves here."""
    response.force_close()
    response.headers["Server"] = "carnet"
    return response
