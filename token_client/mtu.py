"""What goes with a tunnel's routes, for as long as it is watched over: MTU and name servers.

An IKE daemon that sets its routes anew, as by another interface, knows nothing of either. So
whoever watches over the tunnel hears of routes and looks.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from carnet.errors import AwayError, IPsecError
from carnet.ipsec.inside import inside
from carnet.ipsec.inside.route_changes import RouteChanges
from token_client import name_servers
from token_client.sessions import Session


def fit(session: Session) -> None:
    """Have the kernel keep packets for the tunnel as short as Target wants them.

    In transport mode there is no route of its own, and nothing is done. Raises IPsecError.
    """
    if session.mtu is not None and session.virtual_address is not None:
        peers = session.target_addresses
        inside().fit(session.name, session.virtual_address, session.mtu, peers)


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
    try:
        # While helper or daemon is away: whoever watches over the tunnel sees to it afterwards.
        with suppress(AwayError):
            fit(session)
        while changes.wait():
            with suppress(AwayError):
                fit(session)
                name_servers.follow(session)
    except IPsecError as error:
        tell(error.sentence)
