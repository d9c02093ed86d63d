"""The end of a tunnel whose daemon is gone: whether the kernel could still carry packets by it."""

import errno
import shutil
import socket
from collections.abc import Callable, Collection

from carnet.errors import DaemonGoneError, IPsecError, NothingLeftError, TunnelLeftError
from carnet.ipsec import xfrm

NETLINK_XFRM = 6

Finds = Callable[[Collection[str]], bool]
"""Tells whether there is anything of the tunnel in these lines of `ip -o xfrm`."""


def ended(error: DaemonGoneError, *, clean: bool) -> IPsecError:
    """Return what to raise of an end that no daemon has part in, `error` saying that none has."""
    if clean:
        return NothingLeftError(error.sentence)
    return TunnelLeftError(
        f"{error.sentence.rstrip('.')}; until then the kernel may carry the tunnel on without it."
    )


def is_clean(in_sas: Finds, in_policies: Finds) -> bool:
    """Tell whether neither finds anything of a tunnel in the kernel; False where it cannot tell.

    Without IPsec in it, as beside a daemon with an ESP of its own, there is nothing to find.
    Raises IPsecError.
    """
    if not kernel_has_ipsec():
        return True
    if shutil.which("ip") is None:
        return False
    sas, policies = xfrm.list_sas(), xfrm.list_policies()
    if sas.returncode or policies.returncode:
        return False
    return not (in_sas(sas.stdout.splitlines()) or in_policies(policies.stdout.splitlines()))


def kernel_has_ipsec() -> bool:
    """Tell whether the kernel has IPsec; True where it cannot be asked."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM).close()
    except OSError as error:
        return error.errno != errno.EPROTONOSUPPORT
    return True
