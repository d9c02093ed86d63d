"""What the kernel tells of changes (netlink(7)), where that it speaks is enough."""

import errno
import socket


def drain(kernel: socket.socket) -> None:
    """Throw away all that has come; more than there was room for is no error.

    Whoever looks afterwards sees what the lost messages told, too. What is said of SAs has
    keys in it, so none of it is kept. Raises OSError where the socket itself fails.
    """
    while True:
        try:
            kernel.recv(1, socket.MSG_DONTWAIT | socket.MSG_TRUNC)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
