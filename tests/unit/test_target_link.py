"""The Host's way to its Targets, of which there may be many."""

import asyncio
import ssl

from host_agent.config import TargetSection
from host_agent.target_link import TargetLink

TARGETS = 150
"""More than the connections that an aiohttp client has at once, unless told otherwise."""
PATIENCE = 20


async def all_are_asked():
    """Ask each for tunnels that ended, which is answered when one does; see each be asked."""
    asked, all_asked, over = set(), asyncio.Event(), asyncio.Event()

    async def hold(reader, writer):
        asked.add(await reader.readline())
        if len(asked) == TARGETS:
            all_asked.set()
        await over.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    targets = {str(n): TargetSection(url=f"http://127.0.0.1:{port}/{n}") for n in range(TARGETS)}
    link = TargetLink(targets, ssl.create_default_context())
    polls = [asyncio.create_task(link.ended(target, 0)) for target in targets]
    try:
        await asyncio.wait_for(all_asked.wait(), PATIENCE)
    finally:
        over.set()
        await asyncio.gather(*polls, return_exceptions=True)
        await link.close()
        server.close()


def test_waiting_for_each_of_many_targets_keeps_no_connection_from_a_request():
    asyncio.run(all_are_asked())
