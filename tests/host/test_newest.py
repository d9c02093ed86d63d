"""A Key Database that lacks what the process itself has written there."""

import pytest
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from carnet.audit.chain import ChangedError
from carnet.wire.keys import key_id_of
from host_agent.keydb import PairState
from tests.host.conftest import sealed_request
from tests.host.test_accounts import tamper

BACK = (
    "DELETE FROM audit WHERE number = 3",
    "DELETE FROM requests",
    "UPDATE key_pairs SET state = 'valid', reason = NULL",
)
"""All that the third record is of."""


def test_nothing_is_spent_where_a_record_of_the_process_is_missing(database, pair, other_pair):
    assert database.spend(*sealed_request(pair))
    tamper(database, *BACK)
    for key in (pair, other_pair):
        with pytest.raises(ChangedError, match="record 3 of the accounts is not in it"):
            database.spend(*sealed_request(key))
        assert database.find_pair(key_id_of(key.public_key)).state is PairState.VALID


def test_nothing_is_missing_of_what_did_not_become_durable(database, pair):
    @event.listens_for(database.engine, "commit", once=True)
    def fail(_):
        raise SQLAlchemyError("the disk is full")

    with pytest.raises(SQLAlchemyError, match="is full"):
        database.spend(*sealed_request(pair))
    assert database.spend(*sealed_request(pair))
