"""What stands against a batch: pairs of it that are known, and are not what it says."""

from collections.abc import Collection

from sqlalchemy import and_, case, literal, select

from carnet.database.sql import now
from host_agent.keydb.records import NewPair, PairState, Reason
from host_agent.keydb.store import Store
from host_agent.schema import key_pairs as _pairs

_FIXED = {
    "user_id": "another user's",
    "token_serial": "another token's",
    "custody": "in another custody",
    "suite": "of another suite",
    "host_key_id": "for another key of this Host",
}
"""Columns that never change once a pair is known, and what a pair is that differs in one."""


class Known(Store):
    """Which pairs are known already, by another batch."""

    def at_odds(self, like: NewPair, key_ids: Collection[bytes]) -> list[tuple[str, bytes]]:
        """Return those of some pairs that no batch can bring any more, and what each is.

        `like` is any pair of the batch: all of one are alike in what counts here. What was
        valid when this very batch brought it may be invalid by now; another batch that
        names it promises what its pairs no longer keep.
        """
        differs = [
            (_pairs.c[column].is_distinct_from(getattr(like, column)), literal(word))
            for column, word in _FIXED.items()
        ]
        later = _pairs.c.batch_id != like.batch_id
        spent = [
            (later & (_pairs.c.state == PairState.INVALID), _pairs.c.reason),
            (and_(later, _pairs.c.not_after <= now()), literal(str(Reason.EXPIRED))),
            (
                later & _pairs.c.not_after.is_distinct_from(like.not_after),
                literal("known with another last day"),
            ),
        ]
        word = case(*differs, *spent).label("word")
        known = select(word, _pairs.c.key_id, _pairs.c.label).where(_pairs.c.key_id.in_(key_ids))
        found = known.subquery()
        query = select(found.c.word, found.c.key_id).where(found.c.word.is_not(None))
        with self._reading.begin() as connection:
            rows = connection.execute(query.order_by(found.c.label, found.c.key_id))
            return [(row.word, row.key_id) for row in rows]
