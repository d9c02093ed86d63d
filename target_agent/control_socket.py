"""Where the service takes its operator's orders."""

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from aiohttp import web

from carnet.unix_socket import bind_private
from target_agent.agent import Agent, Ending
from target_agent.control import PATH, Ended, Order

STOP_SECONDS = 10
"""For orders to be obeyed in once the service is to stop: they are written down."""


@contextlib.asynccontextmanager
async def control_socket(agent: Agent, path: Path) -> AsyncIterator[None]:
    """Take the operator's orders at a socket that only she can open.

    Whoever left one behind is gone: the lock is ours.

    Raises UsageError if there can be no socket there.
    """

    async def obey(request: web.Request) -> web.Response:
        order = msgspec.json.decode(await request.read(), type=Order)
        return web.Response(body=msgspec.json.encode(await _obey(agent, order)))

    application = web.Application()
    application.router.add_post(PATH, obey)
    runner = web.AppRunner(
        application, access_log=None, handle_signals=False, shutdown_timeout=STOP_SECONDS
    )
    await runner.setup()
    try:
        await web.SockSite(runner, bind_private(path)).start()
        yield
    finally:
        await runner.cleanup()


async def _obey(agent: Agent, order: Order) -> Ended:
    if order.user_id is not None:
        endings = await agent.end_all_of(order.user_id, order.reason)
    elif order.request_id is not None:
        request_id = bytes.fromhex(order.request_id)
        endings = {request_id: await agent.end(request_id, order.reason)}
    else:
        endings = {}
    found: dict[Ending, list[str]] = defaultdict(list)
    for request_id, ending in endings.items():
        found[ending].append(request_id.hex())
    return Ended(
        ended=tuple(found[Ending.DONE]),
        waiting=(*found[Ending.WAITING], *found[Ending.UNWRITTEN]),
        unrecorded=tuple(found[Ending.UNRECORDED]),
    )
