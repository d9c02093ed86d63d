"""Finding out that the Key Database was put back to an older state.

In an older state spent pairs are valid again. The HSM keeps the newest signed head of
the accounts: a database that does not hold that very record is older, or another one.
That is asked at every login to the HSM and before every signing. What a process knows besides,
from what it has written itself (carnet.audit.newest), is asked before it writes more, and of
every new connection to the database (Witness).
"""

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Select, event, select
from sqlalchemy.exc import SQLAlchemyError

from carnet import audit, crash
from carnet.audit.heads import keep_head, next_head
from carnet.audit.newest import Mark
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
from carnet.wire.documents import AccountsHead, read_unverified, sign_document, verify_document
from carnet.wire.fault import WireError
from carnet.wire.keys import load_public_key
from carnet.wire.suites import P256
from host_agent import schema
from host_agent.agreement import check_agreement
from host_agent.keydb import KeyDatabase
from softhsm.durable import durably, saying_when_full, sync_left, sync_token


def check_not_older(database: KeyDatabase, session: TokenSession) -> None:
    """Raise UsageError if the HSM has seen a record that the Key Database does not hold.

    Raises TokenError if the token fails, or keeps a head that is not its own.
    """
    check_holds(database, newest_seen(session))


def check_holds(database: KeyDatabase, head: AccountsHead | None) -> None:
    """Raise UsageError if the Key Database does not hold the record of that head of the HSM."""
    if head is None or _database_holds(database, head):
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
    """Make the key of the accounts on an HSM that is new; it outlasts a power cut.

    So does what a process stored before that was killed. One that writes to the Key Database
    makes it, so that of processes which start together one does. Needs a writable session;
    raises TokenError.
    """
    if has_accounts_key(session):
        sync_left(session)
        return
    with durably(session), transaction(database.engine):
        accounts_key(session)


def accept_older(database: KeyDatabase, session: TokenSession, agent: str, reason: str) -> None:
    """Have the HSM go by this Key Database from now on, and account for that.

    Raises UsageError if it does not agree with itself, TokenError if the token fails.
    """
    check_agreement(database)
    with transaction(database.engine) as connection:
        audit.append(connection, schema.audit, "restored", why=reason)
    _mark(database, session, agent, _replace_mark)


def advance_mark(database: KeyDatabase, session: TokenSession, agent: str) -> None:
    """Sign the newest record and keep its head, in the database first, then on the HSM.

    Raises UsageError if the Key Database is older than the HSM knows, TokenError if the
    token fails.
    """
    seen = newest_seen(session)
    check_holds(database, seen)
    _mark(database, session, agent, keep_mark, seen.number if seen else 0)


def keep_mark(session: TokenSession, signed: bytes) -> None:
    """Keep a signed head on the HSM, unless a newer one is kept there; raises TokenError."""
    number = _number(signed)
    with saying_when_full(session.identity.serial):
        write_mark(session, signed, stands=lambda mark: _number(mark) >= number, sync=sync_token)


def _replace_mark(session: TokenSession, signed: bytes) -> None:
    with saying_when_full(session.identity.serial):
        write_mark(session, signed, sync=sync_token)


def _number(signed: bytes) -> int:
    try:
        return read_unverified(signed, AccountsHead).number
    except WireError:
        return 0


def _mark(
    database: KeyDatabase,
    session: TokenSession,
    agent: str,
    write: Callable[[TokenSession, bytes], None],
    marked: int | None = None,
) -> None:
    have_accounts_key(database, session)
    with transaction(database.engine) as connection:
        head = next_head(connection, schema.audit, schema.audit_heads, agent, marked)
        if head is None:
            return
        signed = sign_document(head, lambda digest: sign_accounts(session, digest))
        keep_head(connection, schema.audit_heads, head.number, signed)
    crash.reach("accounts.head-kept")
    write(session, signed)


class OlderError(SQLAlchemyError):
    """The database that was connected to lacks a record that it had."""


class ForgottenError(UsageError):
    """The Key Database lacks what this process wrote there itself."""


class Witness:
    """The newest record that the HSM or this process has seen, asked of every new connection.

    A database that is put back to an older state takes its connections with it, so that the
    first statement after it is refused already.
    """

    def __init__(self, database: KeyDatabase) -> None:
        self._database, self._dialect = database, database.engine.dialect
        self._newest = database.newest
        self.head: AccountsHead | None = None
        """The one that the HSM keeps."""
        event.listen(database.engine, "connect", self._ask)

    def compare(self, head: AccountsHead | None) -> None:
        """Raise UsageError unless the database holds what this process knows, and what its HSM.

        ForgottenError where it is the first that is missing.

        Then that head is what it goes by. Not before: who signed it may have had a database that
        lacks what this process wrote, which nobody else would know then.
        """
        known = self._newest.mark
        if known is None:
            self._learn(head)
        elif not _database_holds(self._database, known):
            raise ForgottenError(self._newest.missing(known))
        check_holds(self._database, head)
        self._learn(head)

    def knows_more(self, head: AccountsHead | None, why: Exception) -> bool:
        """Tell whether an HSM that keeps this head is to remember more, by what compare() raised.

        Where the database did not answer, not in the place of what another process has signed,
        and no database was seen to hold.
        """
        mark = self._newest.mark
        is_missed = isinstance(why, ForgottenError) or head == self.head
        return is_missed and mark is not None and (head is None or head.number < mark.number)

    def tell(self, session: TokenSession, agent: str) -> None:
        """Have the HSM remember what is known here, for the next start; raises TokenError."""
        mark = self._newest.mark
        if mark is None:
            return
        head = AccountsHead(
            version=1,
            agent=agent,
            number=mark.number,
            digest=mark.digest,
            signed_at=int(time.time()),
        )
        keep_mark(session, sign_document(head, lambda digest: sign_accounts(session, digest)))
        self.head = head

    def _learn(self, head: AccountsHead | None) -> None:
        self.head = head
        if head is not None:
            self._newest.learn(Mark(head.number, head.digest))

    def _ask(self, connection: Any, _: Any) -> None:
        """Raise OlderError if it is another database than the one that is known."""
        mark = self._newest.mark
        if mark is None:
            return
        query = _digest_of(mark.number).compile(
            dialect=self._dialect, compile_kwargs={"literal_binds": True}
        )
        cursor = connection.cursor()
        row = cursor.execute(str(query)).fetchone()
        cursor.close()
        connection.rollback()
        if row is None or bytes(row[0]) != mark.digest:
            connection.close()
            raise OlderError(self._newest.missing(mark))


def _database_holds(database: KeyDatabase, record: AccountsHead | Mark) -> bool:
    try:
        with database.begin() as connection:
            return bool(connection.scalar(_digest_of(record.number)) == record.digest)
    except OlderError:
        return False


def _digest_of(number: int) -> Select[Any]:
    return select(schema.audit.c.digest).where(schema.audit.c.number == number)
