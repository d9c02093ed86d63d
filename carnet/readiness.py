"""Whether a service could serve now: looked at, not remembered."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy.exc import SQLAlchemyError

from carnet.errors import CarnetError

Check = Callable[[], Awaitable[None]]
"""Raises CarnetError or SQLAlchemyError if something does not work."""

CHECK_SECONDS = 3.0
"""In which each part must answer."""
KEPT_SECONDS = 1.0
"""For how long what was found is told again: however often somebody asks, it costs no more."""


class Readiness:
    """The parts that a service needs, each with what looks whether it works."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._found: dict[str, str | None] = {}
        self._found_at = float("-inf")
        self._looking = asyncio.Lock()

    async def look(self) -> Mapping[str, str | None]:
        """Return for each part what is wrong with it, None for what works."""
        async with self._looking:
            if time.monotonic() - self._found_at > KEPT_SECONDS:
                found = await asyncio.gather(*map(self._check, self._checks))
                self._found = dict(zip(self._checks, found, strict=True))
                self._found_at = time.monotonic()
            return self._found

    async def _check(self, part: str) -> str | None:
        """Look at one part; what an earlier look was told late does not tell how it is now."""
        asked_before = part in self._under_way
        found = await self._ask(part)
        is_old = asked_before and part not in self._under_way
        return await self._ask(part) if found is not None and is_old else found

    async def _ask(self, part: str) -> str | None:
        """Ask one part; one that is silent is asked again only after it has answered."""
        task = self._under_way.get(part)
        if task is None:
            task = self._under_way[part] = asyncio.ensure_future(self._checks[part]())
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await asyncio.shield(task)
        except CarnetError as error:
            return error.sentence
        except SQLAlchemyError as error:
            return str(getattr(error, "orig", None) or error).splitlines()[0]
        except TimeoutError:
            return f"no answer for {CHECK_SECONDS:g} seconds"
        finally:
            if task.done():
                del self._under_way[part]
        return None
