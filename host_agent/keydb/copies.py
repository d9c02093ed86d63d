"""On which HSMs a pair's private key is, where several Hosts have one each.

That an HSM may hold a copy is written down before the copy is made: so none is ever
forgotten. A pair of which nothing is written here has its one key on the one HSM that
all processes share.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable

from sqlalchemy import ColumnElement, Connection, bindparam, exists, select, update

from carnet.database.sql import now, upsert
from carnet.portions import batched
from carnet.wire.envelope import PAIRED
from host_agent.keydb.records import PairState
from host_agent.keydb.store import Store
from host_agent.schema import key_copies as _copies
from host_agent.schema import key_pairs as _pairs
from host_agent.schema import requests as _requests
from host_agent.schema import wrapped_keys as _wrapped

_AT_ONCE = 500
"""Keys that one statement names; SQLite takes no more than some thousands of parameters."""

# Made once: to make a statement takes longer than to run it.
_GONE = (
    update(_copies)
    .where(
        _copies.c.key_id == bindparam("wanted"),
        _copies.c.hsm_serial == bindparam("serial"),
        _copies.c.destroyed_at.is_(None),
    )
    .values(destroyed_at=now())
)
_SETTLE = (
    update(_pairs)
    .where(
        _pairs.c.key_id == bindparam("wanted"),
        _pairs.c.key_destroyed_at.is_(None),
        ~exists().where(_copies.c.key_id == bindparam("wanted"), _copies.c.destroyed_at.is_(None)),
    )
    .values(key_destroyed_at=now())
)


class Copies(Store):
    """Which HSM holds whose private key."""

    def record_copies(self, hsm_serial: str, key_ids: Iterable[bytes]) -> None:
        """Write down that this HSM is about to hold these keys; twice changes nothing."""
        for some in batched(key_ids, _AT_ONCE):
            with self._writing() as connection:
                connection.execute(
                    upsert(connection, _copies)
                    .values([{"key_id": each, "hsm_serial": hsm_serial} for each in some])
                    .on_conflict_do_update(
                        index_elements=["key_id", "hsm_serial"], set_={"destroyed_at": None}
                    )
                )
                _owe_again(connection, some)

    def record_destroyed(self, key_id: bytes, hsm_serial: str | None = None) -> None:
        """Write down that a pair's private key is gone from an HSM (step 10); once only.

        The pair is settled when no HSM holds its key any more.
        """
        with self._writing() as connection:
            self._record_destroyed(connection, key_id, hsm_serial)

    def _record_destroyed(
        self, connection: Connection, key_id: bytes, hsm_serial: str | None = None
    ) -> None:
        gone = connection.execute(_GONE, {"wanted": key_id, "serial": hsm_serial})
        settled = connection.execute(_SETTLE, {"wanted": key_id})
        if gone.rowcount or settled.rowcount:
            facts = {"hsm": hsm_serial} if gone.rowcount else {}
            self._audit_pair(connection, "key-destroyed", key_id, **facts)

    def may_hold(self, hsm_serial: str | None, key_id: bytes) -> bool:
        """Tell whether it is written down that this HSM may hold a pair's private key."""
        here = (_copies.c.key_id == key_id) & (_copies.c.hsm_serial == hsm_serial)
        query = select(exists().where(here, _copies.c.destroyed_at.is_(None)))
        with self._reading.begin() as connection:
            return bool(connection.scalar(query))

    def keys_to_destroy(self, hsm_serial: str | None = None) -> list[bytes]:
        """Return invalid pairs whose private key may still be on this HSM; None: on any.

        What is kept wrapped besides is for any Host to delete. A pair whose request is
        unanswered needs its key for the answer.
        """
        with self._reading.begin() as connection:
            owed = list(connection.scalars(select(_pairs.c.key_id).where(is_owed())))
            if hsm_serial is None:
                return owed
            copies = _copies_of(connection, owed)
            wrapped = _wrapped_of(connection, list(copies))
        return [
            each
            for each in owed
            if each in wrapped or copies.get(each, {}).get(hsm_serial, each not in copies)
        ]

    def unwanted(self, key_ids: Collection[bytes]) -> list[bytes]:
        """Return which of these keys, found on an HSM, nothing wants there any more.

        Also such as were destroyed before: a power cut may have brought them back.
        """
        found: list[bytes] = []
        with self._reading.begin() as connection:
            for some in batched(key_ids, _AT_ONCE):
                query = select(_pairs.c.key_id).where(_pairs.c.key_id.in_(some), is_over())
                found += connection.scalars(query)
        return found

    def unwanted_wrapped(self) -> list[bytes]:
        """Return the pairs of which a private key is kept wrapped, and nothing wants it any more.

        As unwanted() does; it looks at all that is kept wrapped.
        """
        of_pair = _pairs.c.key_id == _wrapped.c.key_id
        query = select(_wrapped.c.key_id).distinct().join(_pairs, of_pair).where(is_over())
        with self._reading.begin() as connection:
            return list(connection.scalars(query))


def is_owed() -> ColumnElement[bool]:
    """Say that a pair is invalid, and that its private key may still be there.

    In custody `split` there never was one.
    """
    return is_over() & _is_not_gone()


def is_owed_or_back() -> ColumnElement[bool]:
    """Say the same, or that it is kept wrapped again, though it was deleted.

    A page of an older file may have brought it back, or a hand.
    """
    is_back = exists().where(_wrapped.c.key_id == _pairs.c.key_id)
    # First what is quickly seen of most of them.
    return (_is_not_gone() | is_back) & is_over()


def _is_not_gone() -> ColumnElement[bool]:
    return (_pairs.c.custody == PAIRED) & _pairs.c.key_destroyed_at.is_(None)


def is_over() -> ColumnElement[bool]:
    """Say that no request needs a pair's private key any more."""
    request = _requests.alias()
    unanswered = exists().where(request.c.key_id == _pairs.c.key_id, request.c.outcome.is_(None))
    return (_pairs.c.state == PairState.INVALID) & ~unanswered


def _copies_of(connection: Connection, key_ids: Collection[bytes]) -> dict[bytes, dict[str, bool]]:
    """Return on which HSMs each of these keys was ever, and whether it may be there still."""
    copies: dict[bytes, dict[str, bool]] = defaultdict(dict)
    for some in batched(key_ids, _AT_ONCE):
        for row in connection.execute(select(_copies).where(_copies.c.key_id.in_(some))):
            copies[row.key_id][row.hsm_serial] = row.destroyed_at is None
    return dict(copies)


def _wrapped_of(connection: Connection, key_ids: Collection[bytes]) -> set[bytes]:
    """Return those of these keys that are kept wrapped, whatever HSM may hold them too."""
    found: set[bytes] = set()
    for some in batched(key_ids, _AT_ONCE):
        found.update(
            connection.scalars(select(_wrapped.c.key_id).where(_wrapped.c.key_id.in_(some)))
        )
    return found


def _owe_again(connection: Connection, key_ids: list[bytes]) -> None:
    """Have pairs that were settled be owed again: a batch that comes late brings their keys."""
    connection.execute(
        update(_pairs)
        .where(_pairs.c.key_id.in_(key_ids), _pairs.c.key_destroyed_at.is_not(None))
        .values(key_destroyed_at=None)
    )
