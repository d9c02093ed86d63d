"""What a Host asks at each login: whether its Key Database and this HSM belong together."""

from contextlib import suppress

import structlog
from sqlalchemy.exc import SQLAlchemyError

from carnet.errors import TokenAwayError, TokenError
from carnet.token.session import TokenSession
from host_agent.keydb import KeyDatabase
from host_agent.rollback import ForgottenError, Witness, have_accounts_key, newest_seen
from host_agent.split_batch import missing_host_keys

log = structlog.get_logger()


def check_hsm(database: KeyDatabase, witness: Witness, agent: str, session: TokenSession) -> None:
    """Let the HSM serve this Key Database, or raise CarnetError; tell what pairs it cannot.

    TokenAwayError where the database fails: the login is tried again.
    """
    try:
        _compare(witness, agent, session)
        _look_over(database, session)
    except SQLAlchemyError as error:
        raise TokenAwayError(
            "The Key Database, with which the HSM is compared, does not answer; it is tried again."
        ) from error


def _compare(witness: Witness, agent: str, session: TokenSession) -> None:
    """Compare what the HSM remembers, and tell it what it missed as it was away."""
    head = newest_seen(session)
    try:
        witness.compare(head)
    except (ForgottenError, SQLAlchemyError) as error:
        if witness.knows_more(head, error):
            with suppress(TokenError):
                witness.tell(session, agent)
        raise


def _look_over(database: KeyDatabase, session: TokenSession) -> None:
    have_accounts_key(database, session)
    for key_id, pairs in missing_host_keys(database, session).items():
        log.warning(
            "host-key-missing",
            host_key=key_id.hex(),
            valid_pairs=pairs,
            remedy="Their requests get 503 here; put the HSM back that has it, or revoke them "
            "and have others minted for the keys of `carnet-host host-keys`.",
        )
