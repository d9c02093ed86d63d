"""What goes with a tunnel's routes, for as long as it is watched over: MTU and name servers.

An IKE daemon that sets its routes anew, as by another interface, knows nothing of either; nor of
the routes that are Carnet's own to set, which go with a link and do not come back with it. So
whoever watches over the tunnel hears of routes and looks.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from carnet.errors import AwayError
from carnet.ipsec.driver import Driver, Routing
from carnet.ipsec.inside import inside
from carnet.ipsec.inside.route_changes import RouteChanges
from token_client import name_servers
from token_client.faults import Faults
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.sessions import SessionStore

_FAILS = "What goes with the routes of the tunnel to {} cannot be set ({}); it is tried again."


def fit(session: Session) -> None:
    """Have the kernel keep packets for the tunnel as short as Target wants them.

    In transport mode there is no route of its own, and nothing is done. Raises IPsecError.
    """
    if session.mtu is not None and session.virtual_address is not None:
        leads = session.target_addresses, session.networks
        inside().fit(session.name, session.virtual_address, session.mtu, *leads)


def lead(driver: Driver, session: Session) -> None:
    """Have the routes set anew that Carnet sets itself, where they are gone.

    Whoever ends the session meanwhile is let go first: routes that came then would stay. Raises
    IPsecError.
    """
    if session.virtual_address is None or not isinstance(driver, Routing):
        return
    sessions = SessionStore(memory_directory())
    with sessions.leaving(session.name):
        known = sessions.find(session.name)
        if known is not None and known.lives:
            driver.lead_again(session.name)


@contextmanager
def kept(driver: Driver, session: Session, tell: Callable[[str], None]) -> Iterator[None]:
    """See meanwhile that it stays so."""
    changes = RouteChanges()
    thread = threading.Thread(target=_keep, args=(driver, session, changes, tell), daemon=True)
    thread.start()
    try:
        yield
    finally:
        changes.stop()
        thread.join()
        changes.close()


def _keep(
    driver: Driver, session: Session, changes: RouteChanges, tell: Callable[[str], None]
) -> None:
    faults = Faults(partial(_FAILS.format, session.target), tell)
    led = partial(lead, driver)
    _look(session, faults, led, fit)
    while changes.wait():
        _look(session, faults, led, fit, name_servers.follow)


def _look(session: Session, faults: Faults, *see_to: Callable[[Session], None]) -> None:
    """Look once; what fails is said, and the next change is another try."""
    try:
        # While helper or daemon is away: whoever watches over the tunnel sees to it afterwards.
        with suppress(AwayError):
            for each in see_to:
                each(session)
    except Exception as error:  # noqa: BLE001  of which nobody else would hear
        faults.tell(error)
