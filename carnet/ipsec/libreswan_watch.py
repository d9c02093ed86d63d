"""What happens to Libreswan's tunnels, as it happens.

pluto tells nobody of its events. But each has the kernel change an SA or a policy, of which
the kernel tells; the daemon is then asked, and what it says compared with the last time.
What it was asked too early, or did not answer, is asked again: nothing else would tell.
"""

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path

from carnet.errors import IPsecError
from carnet.ipsec.driver import Change, TunnelEvent
from carnet.ipsec.netlink import drain

AGAIN_SECONDS = 1.0
"""After which what a change in the kernel was about is looked at once more."""
LOOK_SECONDS = 30.0
"""Between two looks where the kernel tells of nothing."""

_NETLINK_XFRM = 6
_CHANGES = 1 << 2 | 1 << 3
"""XFRMNLGRP_SA and XFRMNLGRP_POLICY (linux/xfrm.h): SAs and policies that come and go.

With IKEv1 a responder has pluto add both SAs before the initiator's last message comes, by
which the tunnel stands: then only its policies change.
"""


class Watch:
    """Tells of tunnels that come up and go, from the moment this is made.

    `standing` returns by name of those that stand now which SAs are their newest, or raises
    IPsecError, as this does if the daemon is not there. With each SA a peer may have led
    less into the tunnel than with the one before, or have more of them than it may.
    """

    def __init__(self, control: Path, standing: Callable[[], Mapping[str, Hashable]]) -> None:
        self._standing = standing
        with contextlib.ExitStack() as stack:
            self._netlink = stack.enter_context(_kernel_changes())
            self._daemon = _handle_of_listener(control)
            stack.callback(os.close, self._daemon)
            self._stop = os.eventfd(0)
            stack.callback(os.close, self._stop)
            self._seen = standing()
            self._resources = stack.pop_all()

    def events(self) -> Iterator[TunnelEvent]:
        """Yield what happens until the daemon goes away or stop() is called.

        A daemon that does not answer twice, one look after the other, counts as gone.
        """
        with self._resources:
            pause, silent = LOOK_SECONDS, False
            while (changed := self._wait(pause)) is not None:
                try:
                    now = self._standing()
                except IPsecError:
                    if silent:
                        return
                    pause, silent = AGAIN_SECONDS, True
                    continue
                pause, silent = (AGAIN_SECONDS if changed else LOOK_SECONDS), False
                seen, self._seen = self._seen, now
                yield from changes(seen, now)

    def stop(self) -> None:
        """Wake events(), from whichever thread."""
        with contextlib.suppress(OSError):  # it was faster
            os.eventfd_write(self._stop, 1)

    def _wait(self, seconds: float) -> bool | None:
        """Tell whether the kernel changed anything within that time; None: it is over."""
        waiting = select.poll()
        for descriptor in (self._netlink.fileno(), self._daemon, self._stop):
            waiting.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in waiting.poll(seconds * 1000)}
        if self._daemon in ready or self._stop in ready:
            return None
        drain(self._netlink)
        return bool(ready)


def changes(seen: Mapping[str, Hashable], now: Mapping[str, Hashable]) -> Iterator[TunnelEvent]:
    """Yield what happened to tunnels by what stood before and stands now."""
    for name in sorted(seen.keys() - now.keys()):
        yield TunnelEvent(name, Change.DOWN)
    for name in sorted(now):
        if name not in seen:
            yield TunnelEvent(name, Change.UP)
        elif seen[name] != now[name]:
            yield TunnelEvent(name, Change.ANEW)


def _kernel_changes() -> socket.socket:
    changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_XFRM)
    try:
        changes.bind((0, _CHANGES))
    except OSError as error:
        changes.close()
        raise IPsecError(
            f"The kernel does not tell of IPsec ({error.strerror}); run this as root."
        ) from error
    return changes


def _handle_of_listener(control: Path) -> int:
    """Return a descriptor that is readable once the daemon at that socket has ended."""
    try:
        return os.pidfd_open(listener(control))
    except OSError as error:
        raise IPsecError(_SILENT.format(control)) from error


_SILENT = (
    "The Libreswan daemon does not answer at {}; start it (systemctl start ipsec) and try again."
)


def listener(control: Path) -> int:
    """Return the process id of the daemon at that socket; raises IPsecError if there is none."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(control))
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("3i", credentials)[0])
    except OSError as error:
        raise IPsecError(_SILENT.format(control)) from error
