"""Finding out that the Key Database was put back to an older state.

In an older state spent pairs are valid again. The HSM keeps the newest signed head of
the accounts: a database that does not hold that very record is older, or another one.
"""

from sqlalchemy import Connection, select

from carnet import audit, crash
from carnet.audit.heads import keep_head, next_head
from carnet.database import transaction
from carnet.errors import UsageError
from carnet.moments import format_moment
from carnet.token.accounts import (
    accounts_key,
    has_accounts_key,
    read_marks,
    sign_accounts,
    write_mark,
)
from carnet.token.session import TokenSession
from carnet.wire.documents import AccountsHead, sign_document, verify_document
from carnet.wire.fault import WireError
from carnet.wire.keys import load_public_key
from carnet.wire.suites import P256
from host_agent import schema
from host_agent.keydb import KeyDatabase


def check_not_older(database: KeyDatabase, session: TokenSession) -> None:
    """Raise UsageError if the HSM has seen a record that the Key Database does not hold.

    Raises TokenError if the token fails, or keeps a head that is not its own.
    """
    head = newest_seen(session)
    if head is None:
        return
    with database.begin() as connection:
        if _holds(connection, head):
            return
    signed_at = format_moment(head.signed_at)
    raise UsageError(
        f"The Key Database is older than its HSM: record {head.number} of the accounts, signed "
        f"on {signed_at}, is not in it. Put the newest database in its place; if there is none, "
        f"revoke what was used since the backup, then run `carnet-host audit restored`."
    )


def newest_seen(session: TokenSession) -> AccountsHead | None:
    """Return the newest head that the HSM keeps; raises UsageError if one is not its own."""
    marks = read_marks(session)
    if not marks:
        return None
    key = load_public_key(accounts_key(session), P256)
    try:
        heads = [verify_document(signed, AccountsHead, key) for signed in marks]
        return max(heads, key=lambda head: head.number)
    except WireError as error:
        raise UsageError(
            f"The head of the accounts on the HSM is not signed by it ({error}); find out who had "
            f"its PIN, then run `carnet-host audit restored`."
        ) from error


def have_accounts_key(database: KeyDatabase, session: TokenSession) -> None:
    """Make the key of the accounts on an HSM that is new.

    One that writes to the Key Database makes it, so that of processes which start
    together one does. Needs a writable session; raises TokenError.
    """
    if has_accounts_key(session):
        return
    with transaction(database.engine):
        accounts_key(session)


def accept_older(database: KeyDatabase, session: TokenSession, agent: str, reason: str) -> None:
    """Have the HSM go by this Key Database from now on, and account for that.

    Raises TokenError if the token fails.
    """
    with transaction(database.engine) as connection:
        audit.append(connection, schema.audit, "restored", why=reason)
    advance_mark(database, session, agent)


def advance_mark(database: KeyDatabase, session: TokenSession, agent: str) -> None:
    """Sign the newest record and keep its head, in the database first, then on the HSM.

    Raises TokenError if the token fails.
    """
    have_accounts_key(database, session)
    with transaction(database.engine) as connection:
        head = next_head(connection, schema.audit, schema.audit_heads, agent)
        if head is None:
            return
        signed = sign_document(head, lambda digest: sign_accounts(session, digest))
        keep_head(connection, schema.audit_heads, head.number, signed)
    crash.reach("accounts.head-kept")
    write_mark(session, signed)


def _holds(connection: Connection, head: AccountsHead) -> bool:
    query = select(schema.audit.c.digest).where(schema.audit.c.number == head.number)
    return connection.execute(query).scalar() == head.digest
