"""Signed heads: the newest record's digest, signed, so that the chain cannot be made anew.

Whoever can write the database can write a whole chain that holds. He cannot sign: the
Host's signing key is on its HSM. So records up to a signed head can be neither
changed nor cut off without a trace, and who keeps a head elsewhere (it is in the log,
too) can tell even when the heads are cut off with them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Column, Connection, LargeBinary, MetaData, Table, select

from carnet.audit.chain import follow
from carnet.database.sql import MOMENT, now, upsert
from carnet.errors import CarnetError
from carnet.moments import format_moment
from carnet.wire.documents import AccountsHead, read_unverified, verify_document
from carnet.wire.fault import WireError
from carnet.wire.keys import load_public_key
from carnet.wire.suites import P256

BY_NO_KEY = "its signed head is by no key of these accounts"
"""A reason for accounts that do not hold, or for having been given too few keys."""
_NO_HEAD = "its signed head is none that was ever written"
"""The same where no keys were given, so that none can be missing."""


def heads_table(metadata: MetaData) -> Table:
    """Return the definition of the table of signed heads."""
    return Table(
        "audit_heads",
        metadata,
        Column("number", MOMENT, primary_key=True, autoincrement=False),
        Column("signed", LargeBinary, nullable=False),
    )


def next_head(
    connection: Connection, table: Table, heads: Table, agent: str, marked: int | None = None
) -> AccountsHead | None:
    """Return the newest record as a head to be signed; None if it is signed already.

    `marked` is the number of the newest head that is also kept outside of the database, by
    whoever does so: one that is behind signs, though another process may have signed.
    """
    newest = connection.execute(
        select(table.c.number, table.c.digest, now().label("at"))
        .order_by(table.c.number.desc())
        .limit(1)
    ).first()
    if newest is None:
        return None
    is_marked = marked is None or marked >= newest.number
    if is_marked and _is_signed(connection, heads, newest.number):
        return None
    return AccountsHead(
        version=1, agent=agent, number=newest.number, digest=newest.digest, signed_at=newest.at
    )


def _is_signed(connection: Connection, heads: Table, number: int) -> bool:
    query = select(heads.c.number).where(heads.c.number == number)
    return connection.execute(query).first() is not None


def keep_head(connection: Connection, heads: Table, number: int, signed: bytes) -> None:
    """Keep a signed head; if another process was quicker, its head stands."""
    values = {"number": number, "signed": signed}
    connection.execute(upsert(connection, heads).values(values).on_conflict_do_nothing())


def newest_head(connection: Connection, heads: Table) -> bytes | None:
    """Return the newest signed head, as it was signed; None if there is none.

    Raises CarnetError where what is there can be none.
    """
    query = select(heads.c.signed).order_by(heads.c.number.desc()).limit(1)
    signed: object = connection.execute(query).scalar()
    if signed is None or isinstance(signed, bytes):
        return signed
    raise CarnetError(
        "The newest signed head was changed: it is of no kind that was ever written; keep this "
        "database, and compare it with a backup."
    )


@dataclass(frozen=True)
class Examination:
    """What `audit verify` found."""

    records: int
    """How many hold, from the first on."""
    signed: int
    """Up to which record a signature says that nothing was changed or cut off."""
    broken_at: int | None = None
    """The first record that is not what was written, if one is not."""
    reason: str = ""
    """Half a sentence: how that shows."""

    @property
    def is_chained(self) -> bool:
        """Whether all records follow one another that there are, whoever signed them."""
        return self.broken_at is None or self.reason in (BY_NO_KEY, _NO_HEAD)


def examine(
    connection: Connection,
    table: Table,
    heads: Table,
    keys: Iterable[bytes] | None,
    witnesses: Iterable[bytes] = (),
) -> Examination:
    """Compare the chain with itself, with the signed heads, and with heads kept elsewhere.

    `keys` are public keys (SubjectPublicKeyInfo) of this agent's accounts; a head under
    any other breaks the accounts. None: no signature is verified, which proves nothing
    against who can write the database.
    """
    stored = connection.execute(select(heads.c.number, heads.c.signed)).all()
    trusted = None if keys is None else [load_public_key(key, P256) for key in keys]
    claims: dict[int, list[AccountsHead]] = defaultdict(list)
    strangers: list[int] = []
    for number, signed in [*((row.number, row.signed) for row in stored), *_numbered(witnesses)]:
        head = _head(signed, trusted)
        if head is None or head.number != number:
            strangers.append(number if isinstance(number, int) else 0)
        else:
            claims[number].append(head)
    found = _compare(connection, table, claims)
    # A broken chain comes first: no key that is missing can mend it.
    if strangers and found.broken_at is None:
        reason = BY_NO_KEY if trusted is not None else _NO_HEAD
        return replace(found, broken_at=min(strangers), reason=reason)
    return found


def _compare(
    connection: Connection, table: Table, claims: Mapping[int, list[AccountsHead]]
) -> Examination:
    records = signed = 0
    for link in follow(connection, table):
        if not link.holds:
            return _broken(link.number, records, signed)
        for head in claims.get(link.number, ()):
            if head.digest != link.digest:
                reason = f"it is not the one whose head was signed on {_signed_at(head)}"
                return Examination(records, signed, link.number, reason)
            signed = link.number
        records = link.number
    lost = [head for number, those in claims.items() if number > records for head in those]
    if lost:
        head = max(lost, key=lambda each: each.number)
        reason = f"it is gone: a head signed on {_signed_at(head)} names record {head.number}"
        return Examination(records, signed, records + 1, reason)
    return Examination(records, signed)


def _broken(number: int, records: int, signed: int) -> Examination:
    """Return what is found where a record does not hold; of two with its number, neither does."""
    before = number - 1
    reason = "it is there twice" if number == records else "it does not follow the one before"
    return Examination(min(records, before), min(signed, before), number, reason)


def _head(
    signed: object, trusted: Sequence[ec.EllipticCurvePublicKey] | None
) -> AccountsHead | None:
    """Return a head that one of these keys signed; without keys, what it says without proof."""
    if not isinstance(signed, bytes):
        return None
    if trusted is None:
        with suppress(WireError):
            return read_unverified(signed, AccountsHead)
        return None
    for key in trusted:
        with suppress(WireError):
            return verify_document(signed, AccountsHead, key)
    return None


def _numbered(witnesses: Iterable[bytes]) -> Iterable[tuple[int, bytes]]:
    for signed in witnesses:
        try:
            yield read_unverified(signed, AccountsHead).number, signed
        except WireError:
            yield 0, signed


def _signed_at(head: AccountsHead) -> str:
    return format_moment(head.signed_at)
