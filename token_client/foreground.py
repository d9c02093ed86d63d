"""`carnet connect --foreground`: stay with the tunnel, and end it with the command."""

from collections.abc import Callable
from contextlib import suppress

from carnet.errors import IPsecError, TokenError
from carnet.ipsec.driver import Driver
from token_client.closing import end_session
from token_client.config import ClientConfig
from token_client.memory import memory_directory
from token_client.patience import until_the_helper_is_back
from token_client.sessions import Session, SessionStore
from token_client.watch import Ending, Watch, lookout


def stay(
    driver: Driver,
    session: Session,
    config: ClientConfig,
    tell: Callable[[str], None],
    show: Callable[[], None],
) -> None:
    """Show the tunnel, watch over it and the token; take it out whichever way this ends.

    Raises TokenError if the token was pulled and the configuration ends the tunnel
    then, IPsecError if the session is over, or the tunnel went down by itself: what is
    meant for it is held back then, until somebody ends the session.
    """
    sessions = SessionStore(memory_directory())

    def end() -> None:
        until_the_helper_is_back(lambda: end_session(driver, sessions, session.name), away=say)

    def say() -> None:
        tell("carnet-helper is away; the tunnel ends as soon as it is started.")

    def give_up(ending: Ending) -> int:
        try:
            end()
        except IPsecError as error:
            tell(f"carnet: {error.sentence}")
            return error.exit_status
        tell(f"carnet: {ending.sentence}")
        return (TokenError if ending.pulled else IPsecError).exit_status

    try:
        show()
        ending = Watch(driver, session, lookout(config, session), config, tell, give_up).run()
    except BaseException:
        end_session(driver, sessions, session.name)
        raise
    if ending.pulled or ending.over:
        end()
        raise (TokenError if ending.pulled else IPsecError)(ending.sentence)
    with suppress(IPsecError):  # the daemon itself may be what is gone
        driver.down(session.name)
    raise IPsecError(ending.sentence)
