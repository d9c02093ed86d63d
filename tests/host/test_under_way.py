"""A revocation while an import is under way: none of the pairs that it brings becomes valid."""

from collections import Counter
from contextlib import contextmanager

import pytest
from msgspec import structs

from carnet import audit
from carnet.errors import RefusedError, UsageError
from carnet.progress import no_bar
from host_agent import schema
from host_agent.importing import _check_pairs_stand, check_not_revoked, record_batch, under_way
from host_agent.keydb import Reason, Revocation
from host_agent.revoking import revoke
from tests.host.batches import opened, split_batch
from tests.host.test_unfinished import (
    held,
    minted,
    put_onto,
    record,
    session,  # noqa: F401  a fixture
    stores,
)

PAIRS = 2
STOLEN = Revocation("stolen", Reason.LOST, by="officer")


@contextmanager
def importing(database, batch):
    """An import that has begun, and the rest of it."""
    with opened(batch) as (file, _), no_bar("", 0) as advance, under_way(file, database):
        yield lambda: record_batch(file, database, advance)


def check(database, batch):
    with opened(batch) as (file, _):
        check_not_revoked(file, database)


def states(database):
    counted = Counter()
    for each in database.count():
        counted[each.state] += each.pairs
    return dict(counted)


def records(database, event):
    with database.begin() as connection:
        return [each for each in audit.read(connection, schema.audit) if each.event == event]


@pytest.mark.parametrize("which", ["user_id", "token_serial"])
def test_what_an_import_brings_is_revoked_with_what_is_there(database, pair, which):
    batch = split_batch(PAIRS)
    with importing(database, batch) as finish:
        done = revoke(database, STOLEN, **{which: getattr(batch, which)})
        assert (len(done.key_ids), done.importing) == (1, PAIRS)
        assert revoke(database, STOLEN, user_id=batch.user_id).importing == 0
        assert finish() == PAIRS
    assert states(database) == {"lost": 1 + PAIRS}
    told = records(database, "revoked")
    assert [each.facts["why"] for each in told] == ["stolen"] * (1 + PAIRS)
    assert {(each.facts["by"], each.facts["reason"]) for each in told} == {("officer", "lost")}


def test_it_stays_so_by_this_batch_and_by_another(database):
    batch = split_batch(PAIRS)
    for new in (PAIRS, 0):
        with importing(database, batch) as finish:
            revoke(database, STOLEN, user_id=batch.user_id)
            assert finish() == new
        with pytest.raises(RefusedError, match=r"revoked while it was imported \(stolen\)"):
            check(database, batch)
    again = structs.replace(batch, batch_id=bytes(16))
    with opened(again) as (file, _), pytest.raises(RefusedError, match="2 already lost"):
        _check_pairs_stand(file, database)
    assert states(database) == {"lost": PAIRS}


def test_an_import_that_was_cut_off_has_begun(database):
    batch = split_batch(PAIRS)
    with importing(database, batch):
        pass
    revoke(database, STOLEN, token_serial=batch.token_serial)
    with importing(database, batch) as finish:
        finish()
    assert states(database) == {"lost": PAIRS}


@stores
def test_keys_that_came_with_it_are_destroyed_or_not_kept(session, database, store):  # noqa: F811
    batch = minted(session).batch
    put_onto(session, database, batch, store)
    revoke(database, STOLEN, user_id=batch.user_id)
    assert record(database, batch, store) == PAIRS
    serial = session.token.info.serial
    assert states(database) == {"lost": PAIRS}
    assert len(database.keys_to_destroy(serial)) == PAIRS
    assert not any(database.wrapped_keys(each) for each in database.keys_to_destroy())
    over = database.batch_keys_to_destroy(serial)
    assert held(session) == ((PAIRS, 0) if store == "token" else (0, len(over)))


def test_what_others_revoke_and_what_was_revoked_before_concern_it_not(database):
    batch = split_batch(PAIRS)
    revoke(database, STOLEN, user_id=batch.user_id)
    with importing(database, batch) as finish:
        for which in ({"user_id": "bob@office"}, {"token_serial": "2"}, {"key_id": bytes(16)}):
            assert revoke(database, STOLEN, **which).importing == 0
        finish()
    assert states(database) == {"valid": PAIRS}
    check(database, batch)
    assert revoke(database, STOLEN, user_id="bob@office").importing == 0
    assert revoke(database, STOLEN, user_id=batch.user_id).importing == 0


def test_one_that_is_refused_has_not_begun(database):
    batch = split_batch(PAIRS)

    def refused():
        with pytest.raises(RefusedError), importing(database, batch):
            raise RefusedError("A test.")

    refused()
    assert revoke(database, STOLEN, user_id=batch.user_id).importing == 0
    with importing(database, batch):
        pass
    refused()  # but the first one has
    assert revoke(database, STOLEN, user_id=batch.user_id).importing == PAIRS


def test_one_that_is_given_up_begins_anew(database):
    batch, revoked = split_batch(PAIRS), split_batch(PAIRS, user_id="bob@office")
    with importing(database, batch) as finish, importing(database, revoked):
        revoke(database, STOLEN, user_id="bob@office")
        database.forget_imports()
        with pytest.raises(UsageError, match="given up meanwhile"):
            finish()
    assert revoke(database, STOLEN, user_id=batch.user_id).importing == 0
    with importing(database, batch) as finish, importing(database, revoked) as finish_other:
        finish()
        finish_other()
    assert states(database) == {"valid": PAIRS, "lost": PAIRS}
