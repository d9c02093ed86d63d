"""`carnet connect --foreground`: stay with the tunnel, and end it with the command."""

from collections.abc import Callable

from carnet.errors import IPsecError, TokenError
from carnet.ipsec.driver import Driver
from token_client.config import ClientConfig
from token_client.memory import memory_directory
from token_client.sessions import Session, SessionStore
from token_client.watch import Watch, lookout


def stay(
    driver: Driver,
    session: Session,
    config: ClientConfig,
    tell: Callable[[str], None],
    show: Callable[[], None],
) -> None:
    """Show the tunnel, watch over it and the token; take it out whichever way this ends.

    Raises TokenError if the token was pulled and the configuration ends the tunnel
    then, IPsecError if the tunnel went down by itself.
    """
    try:
        show()
        ending = Watch(driver, session, lookout(config, session), config, tell).run()
    finally:
        driver.down(session.name)
        SessionStore(memory_directory()).drop(session.name)
    raise (TokenError if ending.pulled else IPsecError)(ending.sentence)
