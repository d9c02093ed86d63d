"""What goes with a tunnel's routes, for as long as it is watched over: MTU and name servers.

An IKE daemon that sets its routes anew, as by another interface, knows nothing of either. So
whoever watches over the tunnel hears of routes and looks.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from carnet.errors import AwayError
from carnet.ipsec.inside import inside
from carnet.ipsec.inside.route_changes import RouteChanges
from token_client import name_servers
from token_client.faults import Faults
from token_client.record import Session

_FAILS = "What goes with the routes of the tunnel to {} cannot be set ({}); it is tried again."


def fit(session: Session) -> None:
    """Have the kernel keep packets for the tunnel as short as Target wants them.

    In transport mode there is no route of its own, and nothing is done. Raises IPsecError.
    """
    if session.mtu is not None and session.virtual_address is not None:
        leads = session.target_addresses, session.networks
        inside().fit(session.name, session.virtual_address, session.mtu, *leads)


@contextmanager
def kept(session: Session, tell: Callable[[str], None]) -> Iterator[None]:
    """See meanwhile that it stays so."""
    changes = RouteChanges()
    thread = threading.Thread(target=_keep, args=(session, changes, tell), daemon=True)
    thread.start()
    try:
        yield
    finally:
        changes.stop()
        thread.join()
        changes.close()


def _keep(session: Session, changes: RouteChanges, tell: Callable[[str], None]) -> None:
    faults = Faults(partial(_FAILS.format, session.target), tell)
    _look(session, faults, fit)
    while changes.wait():
        _look(session, faults, fit, name_servers.follow)


def _look(session: Session, faults: Faults, *see_to: Callable[[Session], None]) -> None:
    """Look once; what fails is said, and the next change is another try."""
    try:
        # While helper or daemon is away: whoever watches over the tunnel sees to it afterwards.
        with suppress(AwayError):
            for each in see_to:
                each(session)
    except Exception as error:  # noqa: BLE001  of which nobody else would hear
        faults.tell(error)
