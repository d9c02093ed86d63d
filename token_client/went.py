"""A tunnel that went for good, of whose session something is left: its block, and its token.

Who watches over that asks no daemon, which has nothing of the tunnel: it would seem that this
machine's own had gone.
"""

from carnet.errors import IPsecError
from carnet.ipsec.driver import Driver
from token_client.ending import Ending
from token_client.memory import memory_directory
from token_client.record import Session
from token_client.session_states import Went, WentUntold
from token_client.sessions import SessionStore


def keep_down(driver: Driver, session: Session, ending: Ending) -> bool:
    """Remember why a tunnel went, once the daemon has nothing of it any more.

    What it cannot negotiate anew it may have still: a connection without secrets, or a file.
    Tells whether the daemon has nothing of it.
    """
    try:
        if session.name in driver.installed():
            driver.down(session.name)
    except IPsecError:
        return False
    went = WentUntold if ending.untold else Went
    SessionStore(memory_directory()).change(session.name, went(ending.sentence))
    return True


def why_down(session: Session) -> Ending | None:
    """Return why its tunnel went for good, as it was told then; None where it did not."""
    record = SessionStore(memory_directory()).find(session.name)
    if record is None or not record.stage.is_gone:
        return None
    return Ending(record.stage.why or "", meant=True, untold=record.stage.is_untold)
