"""What stands against a batch: pairs of it that are known, and are not what it says."""

from collections.abc import Collection

from sqlalchemy import and_, case, func, literal, select

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

    def at_odds(self, like: NewPair, key_ids: Collection[bytes]) -> dict[str, int]:
        """Count those of some pairs that no batch can bring any more, by what they are.

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
        word = case(*differs, *spent)
        query = select(word.label("word"), func.count()).where(_pairs.c.key_id.in_(key_ids))
        with self._reading.begin() as connection:
            rows = connection.execute(query.group_by("word"))
            return {row[0]: row[1] for row in rows if row[0] is not None}
