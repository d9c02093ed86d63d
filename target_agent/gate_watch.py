"""Whether the gate still stands: looked at whenever the kernel tells of a change, and now and then.

Whoever loads the packet filter's rules anew (`nft flush ruleset`, with which a stock
/etc/nftables.conf begins) takes the gate away; then it is made anew at once.
"""

import asyncio
import contextlib
import errno
from socket import socket
from typing import Protocol

from target_agent.daemon_threads import ask

LOOK_SECONDS = 5.0
"""Between two looks where nothing is told, as with iptables."""
PAUSE_SECONDS = 0.05
"""Between two looks however much changes: other rules of this machine may change all the time."""
_AT_ONCE = 1 << 16


class Kept(Protocol):
    """What is to stand in the packet filter: the gate, or the block for virtual addresses."""

    def restore(self) -> None:
        """Make it anew where somebody took it away or changed it. Raises IPsecError."""

    def changes(self) -> socket | None:
        """Return what can be read whenever it may have gone; None where nothing tells.

        The caller closes it. Raises OSError.
        """


async def keep_gate(gate: Kept) -> None:
    """Have the gate stand, or the block, for ever.

    Raises IPsecError if it is gone and cannot be made anew, OSError if the kernel does not
    tell of changes.
    """
    with contextlib.ExitStack() as stack:
        # Heard from here on, so that what happens while it is looked at is not missed.
        heard = gate.changes()
        if heard is not None:
            stack.enter_context(heard).setblocking(False)
        while True:
            await ask(gate.restore)
            await asyncio.sleep(PAUSE_SECONDS)
            await _changed(heard)


async def _changed(heard: socket | None) -> None:
    """Wait for a change, or until it is time to look without one."""
    if heard is None:
        await asyncio.sleep(LOOK_SECONDS)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOOK_SECONDS):
            await _received(heard)
    with contextlib.suppress(BlockingIOError):
        while True:
            _drop(heard)


async def _received(heard: socket) -> None:
    try:
        await asyncio.get_running_loop().sock_recv(heard, _AT_ONCE)
    except OSError as error:
        _unless_too_many(error)


def _drop(heard: socket) -> None:
    try:
        heard.recv(_AT_ONCE)
    except BlockingIOError:
        raise
    except OSError as error:
        _unless_too_many(error)


def _unless_too_many(error: OSError) -> None:
    """Raise it, unless there were more changes than the kernel keeps: that is news as well."""
    if error.errno != errno.ENOBUFS:
        raise error
