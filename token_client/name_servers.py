"""Whose name servers this machine asks, as tunnels come, are lost, come back and end."""

from collections.abc import Sequence
from contextlib import suppress

from carnet.errors import IPsecError
from carnet.ipsec.driver import Driver
from carnet.ipsec.inside import inside
from token_client.by_record import Ends
from token_client.faults import reason
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.sessions import SessionStore

_STAY = "The tunnel's name servers cannot be taken away now"


def use(name: str, servers: Sequence[str]) -> str | None:
    """Ask those of a tunnel that came up; return why that cannot be had, if it cannot."""
    try:
        return inside().use_servers(name, servers)
    except IPsecError as error:
        return error.sentence.rstrip(".")


def use_again(session: Session) -> None:
    """Ask those of a tunnel that stands again, unless another's are asked.

    They may have been taken away while it was lost. Where they cannot be had now, nothing is
    lost but that. Whoever ends the session meanwhile is let go first, and then there is none.
    """
    if not session.dns:
        return
    sessions = SessionStore(memory_directory())
    with sessions.leaving(session.name), suppress(IPsecError):
        known = sessions.find(session.name)
        if known is not None and known.lives and inside().whose_servers() is None:
            inside().use_servers(session.name, session.dns)


def follow(session: Session) -> None:
    """Have those of a tunnel go with it to another interface, unless the session is ended.

    To follow is to set them anew: whoever ends the session meanwhile is let go first, as above,
    and waits in turn. Where they cannot be told now, the next change of a route is another try.
    """
    if not session.dns:
        return
    sessions = SessionStore(memory_directory())
    with sessions.leaving(session.name), suppress(IPsecError):
        known = sessions.find(session.name)
        if known is not None and known.lives:
            inside().follow_servers(session.name)


def restore(name: str) -> bool:
    """Take away those of a tunnel that is over; tell whether there were any.

    Raises IPsecError.
    """
    try:
        restored = inside().restore_servers(name) or _restored_unrecorded(name)
    except (IPsecError, OSError) as error:
        raise _staying(error) from error
    if inside().whose_servers() == name:
        raise IPsecError(_STAY)
    return restored


def _restored_unrecorded(name: str) -> bool:
    """Take those away that a damaged record tells nothing of; the session's own knows them."""
    session = SessionStore(memory_directory()).find(name)
    servers = session.dns if session is not None else ()
    return bool(servers) and inside().restore_unrecorded(servers)


def _staying(error: IPsecError | OSError) -> IPsecError:
    return IPsecError(f"{_STAY} ({reason(error)})")


def and_then(error: IPsecError) -> str:
    """Return what to say where they stay and nothing else of their tunnel does."""
    return f"{error.sentence.rstrip('.')}; `carnet disconnect` does it when that is over."


def restore_those_of_a_lost_one(driver: Driver) -> str | None:
    """Take away those of a tunnel that is down: the Host's name may have to be looked up.

    Returns why they stay, if they do. Raises IPsecError.
    """
    name = inside().whose_servers()
    if name is not None and all(live.name != name for live in driver.status()):
        try:
            inside().restore_servers(name)
        except (IPsecError, OSError) as error:
            return and_then(_staying(error))
    return None


def restore_those_of_none(driver: Ends, sessions: SessionStore) -> str | None:
    """Take away those of a tunnel of which nothing else is left; return why they stay, if so.

    They could not be when it was released by hand. Raises IPsecError.
    """
    name = inside().whose_servers()
    if name is not None and name not in driver.installed() and sessions.find(name) is None:
        try:
            restore(name)
        except IPsecError as error:
            return and_then(error)
    return None


def use_those_of_an_older_one(sessions: SessionStore) -> None:
    """Ask through what is left, the newest first, as before the one that ended."""
    left = [each for each in sessions.all() if each.dns and each.lives]
    if left and inside().whose_servers() is None:
        use(left[-1].name, left[-1].dns)
