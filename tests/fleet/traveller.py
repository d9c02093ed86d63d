"""A crowd of travellers: sealed requests made in software, and sent to whichever process."""

import asyncio
import secrets
from dataclasses import dataclass

import aiohttp

from carnet.wire.envelope import open_response, parse_envelope, seal_request
from carnet.wire.messages import Grant
from carnet.wire.suites import P256
from tests.unit.examples import make_request

AT_ONCE = 64
RETRY_SECONDS = 0.2
TRIES = 200


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    reason: str
    retry_after: str


def seal(key):
    """A new request under a pair: fresh Request ID, fresh seal."""
    request = make_request(request_id=secrets.token_bytes(16))
    return seal_request(request, key.public_key, P256, key)


def open_grant(key, request, reply):
    """Open an answer as the traveller's token would."""
    response = open_response(reply.body, parse_envelope(request), key.public_key, key)
    assert isinstance(response, Grant)
    return response


async def post(session, url, body):
    async with session.post(url, data=body) as response:
        words = [response.headers.get(each, "") for each in ("Carnet-Reason", "Retry-After")]
        return Reply(response.status, await response.read(), *words)


async def insist(session, urls, body):
    """Send the same bytes until something else than 503 comes, to one process after the other."""
    for attempt in range(TRIES):
        reply = await post(session, urls[attempt % len(urls)], body)
        if reply.status != 503:
            return reply
        await asyncio.sleep(RETRY_SECONDS)
    raise AssertionError("no answer but 503")


def send_all(requests, send):
    """Send requests, so many at once: send(session, number, body) each; return the replies."""

    async def main():
        room = asyncio.Semaphore(AT_ONCE)
        timeout = aiohttp.ClientTimeout(120)

        async def one(session, number, body):
            async with room:
                return await send(session, number, body)

        async with aiohttp.ClientSession(timeout=timeout) as session:
            return await asyncio.gather(*(one(session, n, r) for n, r in enumerate(requests)))

    return asyncio.run(main())


def send_one(url, body):
    """Send one request once."""
    return send_all([body], lambda session, _, data: post(session, url, data))[0]


def send_until_answered(urls, body):
    """Send one request until it is answered."""
    return send_all([body], lambda session, _, data: insist(session, urls, data))[0]
