"""Tunnels of pairs that were revoked: Target is asked to end them, side by side.

Each is asked for until Target has it written down, and none waits for another: the peer of one
may be silent, and Target's database may stand still over it.
"""

import asyncio
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet import crash
from carnet.database import reason_of
from carnet.database.readers import ask
from carnet.trouble import Trouble
from host_agent.following import Keep, for_each
from host_agent.keydb import KeyDatabase
from host_agent.target_link import TargetLink, TargetSilentError

log = structlog.get_logger()

LOOK_SECONDS = 0.5
"""Between two looks for tunnels that the operator revoked."""
AT_ONCE = 20
"""Asked for at the same time; Target allows an address 32 connections, and requests need some."""
_PAUSE_SECONDS, _LONGEST_SECONDS = 0.5, 5.0
"""Before one that failed is asked for again: at first, and at most."""
_UNWRITTEN = "Target cannot write down that it ends"


class Failed:
    """One that could not be ended, or of which that is not written down."""

    def __init__(self, request_id: bytes, target: str) -> None:
        bound = log.bind(request_id=request_id.hex(), target=target)
        self.trouble = Trouble(bound, "revoked-wait", "revoked-goes-on")
        self.again_at = 0.0
        """By the event loop's clock."""
        self._pause = _PAUSE_SECONDS

    def wait(self, now: float) -> None:
        """Have it asked for after a pause, which grows each time."""
        self.again_at = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_SECONDS)


async def end_all_revoked(
    database: KeyDatabase, link: TargetLink, targets: tuple[str, ...], keep: Keep
) -> None:
    """Have every Target end the tunnels of revoked pairs, for ever."""
    await for_each("revoked tunnels", targets, partial(_end_revoked, database, link), keep)


async def _end_revoked(database: KeyDatabase, link: TargetLink, target: str) -> None:
    await _Revoked(database, link, target).keep()


class _Revoked:
    """Those of one Target."""

    def __init__(self, database: KeyDatabase, link: TargetLink, target: str) -> None:
        self._database, self._link, self._target = database, link, target
        self._failed: dict[bytes, Failed] = {}
        self._under_way: set[bytes] = set()
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._unread = Trouble(log.bind(target=target), "revoked-unknown", "revoked-known")

    async def keep(self) -> None:
        """Look for more, for ever, whatever became of those that were found before."""
        async with asyncio.TaskGroup() as asking:
            while True:
                for request_id in await self._due():
                    self._under_way.add(request_id)
                    asking.create_task(self._end(request_id))
                await asyncio.sleep(LOOK_SECONDS)

    async def _due(self) -> list[bytes]:
        """Return those whose turn it is; what another process has seen to is forgotten."""
        # One that is over by the time that this is read is not due again.
        waiting = set(self._under_way)
        try:
            found = await ask(self._database.tunnels_to_end, self._target)
        except SQLAlchemyError as error:
            self._unread.tell(reason_of(error))
            return []
        self._unread.over()
        for request_id in self._failed.keys() - self._under_way - set(found):
            del self._failed[request_id]
        now = asyncio.get_running_loop().time()
        waiting |= {each for each, failed in self._failed.items() if failed.again_at > now}
        return [each for each in found if each not in waiting]

    async def _end(self, request_id: bytes) -> None:
        """Ask for one; what fails of it, even unforeseen, is nobody else's affair."""
        try:
            async with self._turn:
                written = await self._ask(request_id)
        except (TargetSilentError, SQLAlchemyError) as error:
            self._fail(request_id).tell(str(error))
        except Exception as error:  # noqa: BLE001  told by the log
            self._fail(request_id).tell_unforeseen(error)
        else:
            if not written:
                self._fail(request_id).tell(_UNWRITTEN)
        finally:
            self._under_way.discard(request_id)

    def _fail(self, request_id: bytes) -> Trouble:
        failed = self._failed.setdefault(request_id, Failed(request_id, self._target))
        failed.wait(asyncio.get_running_loop().time())
        return failed.trouble

    async def _ask(self, request_id: bytes) -> bool:
        """Have Target end it; return whether that is written down, there and here."""
        if not await self._link.end(self._target, request_id):
            return False
        crash.reach("host.end-asked")
        await asyncio.to_thread(self._database.record_end_asked, self._target, request_id)
        crash.reach("host.end-recorded")
        log.info("tunnel-end-asked", request_id=request_id.hex(), target=self._target)
        return True
