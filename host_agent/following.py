"""What is done for ever for each Target, so that no Target's failure stops another's."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial

from carnet.background import Work

Keep = Callable[[str, Work], Coroutine[None, None, None]]
"""Has work done for ever under a name (carnet.background)."""


async def for_each(
    name: str,
    targets: tuple[str, ...],
    work: Callable[[str], Coroutine[None, None, None]],
    keep: Keep,
) -> None:
    """Do it for each of them, under a name that has the Target's in it."""
    each = (keep(f"{name} of {target}", partial(work, target)) for target in targets)
    await asyncio.gather(asyncio.Event().wait(), *each)
