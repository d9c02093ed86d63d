"""Hearing from the kernel that routes came or went (rtnetlink(7)); it takes no privileges."""

import contextlib
import os
import select
import socket

from carnet.ipsec.netlink import drain

_ROUTES = 1 << 6 | 1 << 10
"""RTMGRP_IPV4_ROUTE and RTMGRP_IPV6_ROUTE (linux/rtnetlink.h)."""


class RouteChanges:
    """Tells that routes changed, from the moment this is made until close()."""

    def __init__(self) -> None:
        with contextlib.ExitStack() as stack:
            self._kernel = stack.enter_context(
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            )
            self._kernel.bind((0, _ROUTES))
            self._stop = os.eventfd(0)
            stack.callback(os.close, self._stop)
            self._resources = stack.pop_all()

    def wait(self) -> bool:
        """Return True once something has changed since the last call; False after stop()."""
        ready, _, _ = select.select((self._kernel.fileno(), self._stop), (), ())
        if self._stop in ready:
            return False
        drain(self._kernel)
        return True

    def stop(self) -> None:
        """End wait(), from whichever thread."""
        os.eventfd_write(self._stop, 1)

    def close(self) -> None:
        """Hear no more."""
        self._resources.close()
