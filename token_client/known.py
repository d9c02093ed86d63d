"""Whether a session is still meant to live: by its record, or where that is gone, by the daemon.

A record in memory may go while its tunnel stands: the directory with the user's last logout,
or a file that was damaged. `carnet disconnect` takes the tunnel out of the daemon before it
drops the record, so one that the daemon still has was not ended by her.
"""

from carnet.errors import DaemonGoneError, IPsecError
from carnet.ipsec.driver import Driver
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.sessions import SessionStore


def is_recorded(session: Session) -> bool:
    """Tell whether there is a record of the session, and that does not say that it was ended."""
    record = _record(session)
    return record is not None and not record.stage.is_ended


def is_meant(session: Session) -> bool:
    """Tell whether there is a record of the session, which nobody has ended, or begun to end."""
    record = _record(session)
    return record is not None and record.lives


def lives_no_more(session: Session) -> bool:
    """Tell whether its record says that it was ended, or that somebody has begun to."""
    record = _record(session)
    return record is not None and not record.lives


def is_to_end(session: Session) -> bool:
    """Tell whether somebody has begun to end it, and could not bring that to its end.

    Whoever is just about it is waited for.
    """
    if not _is_to_end(session):
        return False
    SessionStore(memory_directory()).wait_for_leave(session.name)
    return _is_to_end(session)


def _is_to_end(session: Session) -> bool:
    record = _record(session)
    return record is not None and record.stage.is_to_end


def why_it_is(session: Session) -> str | None:
    """Return why a session is to end; None: by her own command."""
    record = _record(session)
    return record.stage.why if record is not None and record.stage.is_to_end else None


def _record(session: Session) -> Session | None:
    return SessionStore(memory_directory()).find(session.name)


def is_ended(session: Session) -> bool:
    """Tell whether its record says that it was ended, and why."""
    record = _record(session)
    return record is not None and record.stage.is_ended


def is_known(driver: Driver, session: Session) -> bool:
    """Tell whether the session has a record, or the daemon a tunnel of its name.

    A daemon that does not answer may have one.
    """
    if _record(session) is not None:
        return True
    try:
        return session.name in driver.installed()
    except IPsecError:
        return True


def is_gone(driver: Driver) -> bool:
    """Tell whether there is no daemon; one that is silent, or fails otherwise, is there."""
    try:
        driver.installed()
    except DaemonGoneError:
        return True
    except IPsecError:
        return False
    return False


class Meant:
    """Whether a session is meant to live, as its tunnel goes.

    What is left of a tunnel in the daemon is taken out then, and does not tell any more.
    """

    def __init__(self, driver: Driver, session: Session) -> None:
        self._session = session
        self._recorded = _record(session) is not None
        self._known = is_meant(session) if self._recorded else is_known(driver, session)

    def __bool__(self) -> bool:
        """Tell whether it was, and she has not ended it since, as far as a record can tell."""
        return self._known and (not self._recorded or is_meant(self._session))
