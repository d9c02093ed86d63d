"""Whose name servers this machine asks, as tunnels come, are lost, come back and end."""

from collections.abc import Sequence
from contextlib import suppress

from carnet.errors import IPsecError
from carnet.ipsec.driver import Driver
from carnet.ipsec.inside import inside
from token_client.memory import memory_directory
from token_client.sessions import Session, SessionStore


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
        if known is not None and known.ended is None and inside().whose_servers() is None:
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
        if known is not None and known.ended is None:
            inside().follow_servers(session.name)


def restore(name: str) -> bool:
    """Take away those of a tunnel that is over; tell whether there were any.

    Raises IPsecError.
    """
    restored = inside().restore_servers(name)
    if inside().whose_servers() == name:
        raise IPsecError("The tunnel's name servers cannot be taken away now")
    return restored


def restore_those_of_a_lost_one(driver: Driver) -> None:
    """Take away those of a tunnel that is down: the Host's name may have to be looked up.

    Raises IPsecError.
    """
    name = inside().whose_servers()
    if name is not None and all(live.name != name for live in driver.status()):
        inside().restore_servers(name)


def use_those_of_an_older_one(sessions: SessionStore) -> None:
    """Ask through what is left, the newest first, as before the one that ended."""
    left = [each for each in sessions.all() if each.dns and each.ended is None]
    if left and inside().whose_servers() is None:
        use(left[-1].name, left[-1].dns)
