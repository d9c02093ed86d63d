"""`carnet connect --foreground`: stay with the tunnel, and end it with the command."""

from carnet.errors import IPsecError
from carnet.ipsec.driver import Change, Driver
from token_client.memory import memory_directory
from token_client.sessions import Session, SessionStore


def stay(driver: Driver, session: Session) -> None:
    """Watch the tunnel until it goes down; take it out whichever way this ends.

    Raises IPsecError if the tunnel went down by itself.
    """
    try:
        for event in driver.watch():
            if event.name == session.name and event.change is Change.DOWN:
                break
        raise IPsecError(
            f"The tunnel to {session.target} went down; run `carnet connect` for a new one."
        )
    finally:
        driver.down(session.name)
        SessionStore(memory_directory()).drop(session.name)
