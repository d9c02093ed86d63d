"""What nobody asks for any more is settled by the sweep, not only at the next start."""

from host_agent.keydb import ANSWER_KEPT
from tests.host.conftest import sealed_request


def test_requests_are_unanswered_by_age(database, pair, clock):
    database.spend(*sealed_request(pair))
    assert len(database.unanswered()) == 1
    assert database.unanswered(ANSWER_KEPT) == []
    clock.move(ANSWER_KEPT + 1)
    assert len(database.unanswered(ANSWER_KEPT)) == 1


def test_an_answer_that_stood_first_and_is_no_longer_kept_is_none(database, pair, clock):
    envelope, signed = sealed_request(pair)
    database.spend(envelope, signed)
    database.store_response(envelope.key_id, "granted", b"first")
    clock.move(ANSWER_KEPT + 1)
    database.drop_old_responses()
    assert database.store_response(envelope.key_id, "granted", b"second") is None
