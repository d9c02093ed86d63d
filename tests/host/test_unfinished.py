"""What an import that was cut off left on the HSM: listed, and given up beside others that run."""

import pytest

from carnet import audit
from carnet.errors import TokenError, UsageError
from carnet.progress import no_bar
from carnet.token.batch_keys import BatchKeys
from carnet.token.onetime import OneTimeKeys
from carnet.token.transport import host_transport_key
from carnet.wire.keys import key_id_of
from host_agent import schema
from host_agent.importing import record_batch, wrapped_onto_hsm
from host_agent.keydb import Leftover
from host_agent.keystore.stores import store_of
from host_agent.revoked_meanwhile import under_way
from host_agent.sweep_command import _give_up
from tests.host.batches import SessionToken, opened
from tests.host.booklets import Booklet, HostToken
from tests.token.helpers import PIN

PAIRS = 2
stores = pytest.mark.parametrize("store", ["token", "wrapped"])
GIVEN_UP = {"token": (PAIRS, 0), "wrapped": (0, 1)}


@pytest.fixture
def session(module, make_token):
    make_token("host")
    with HostToken(module, "host", PIN).session() as opened_session:
        yield opened_session


def minted(session, count=PAIRS):
    return Booklet(host_transport_key(session), count)


def put_onto(session, database, batch, store):
    """Import up to the moment before the pairs are recorded."""
    with opened(batch) as (file, _), no_bar("", 0) as advance, under_way(file, database):
        list(wrapped_onto_hsm(file, SessionToken(session), database, advance, store_of(store)))


def record(database, batch, store):
    with opened(batch) as (file, _), no_bar("", 0) as advance:
        return record_batch(file, database, advance, store_of(store))


def held(session):
    return len(OneTimeKeys(session).listed()), len(BatchKeys(session).held())


def listed(database, serial):
    return len(database.unfinished_keys(serial, ())), len(database.unfinished_batch_keys(serial))


def events(database):
    with database.begin() as connection:
        return [each.event for each in audit.read(connection, schema.audit)]


@stores
def test_nothing_more_goes_onto_the_hsm_once_another_import_may_run(session, database, store):
    def lost():
        raise UsageError("lost")

    with opened(minted(session).batch) as (file, _), no_bar("", 0) as advance:
        hsm = SessionToken(session)
        taken = wrapped_onto_hsm(file, hsm, database, advance, store_of(store), lost)
        with pytest.raises(UsageError, match="lost"):
            list(taken)
    assert held(session) == (0, 0)


@stores
def test_what_is_left_is_listed_until_it_is_given_up(session, database, store):
    batch, serial = minted(session).batch, session.token.info.serial
    put_onto(session, database, batch, store)
    assert held(session) == listed(database, serial) == GIVEN_UP[store]
    assert database.leftovers() == ([Leftover(serial, PAIRS)] if store == "token" else [])
    assert _give_up(database, session, yes=True) == GIVEN_UP[store]
    assert held(session) == listed(database, serial) == (0, 0)
    assert database.leftovers() == []
    assert len(events(database)) == sum(GIVEN_UP[store])
    # It is no reason not to take the batch in later.
    put_onto(session, database, batch, store)
    assert record(database, batch, store) == PAIRS
    assert _give_up(database, session, yes=True) == (0, 0)
    assert held(session) == GIVEN_UP[store]


@stores
def test_an_import_that_runs_is_given_up_whole(session, database, store):
    """What was destroyed under it must not become valid."""
    batch = minted(session).batch
    put_onto(session, database, batch, store)
    _give_up(database, session, yes=True)
    with pytest.raises(UsageError, match="given up meanwhile; import the batch again"):
        record(database, batch, store)
    assert database.count() == []


@stores
def test_an_import_that_is_finished_meanwhile_is_not_given_up(session, database, store):
    """Between the list and the destruction."""
    batch, serial = minted(session).batch, session.token.info.serial
    put_onto(session, database, batch, store)
    keys, batch_keys = database.unfinished_keys(serial, ()), database.unfinished_batch_keys(serial)
    record(database, batch, store)
    destroyed = []
    assert database.give_up_keys(serial, keys, destroyed.append) == 0
    assert not any(
        database.give_up_batch_key(serial, each, destroyed.append) for each in batch_keys
    )
    assert destroyed == []


@stores
def test_what_the_hsm_does_not_destroy_stays_listed(session, database, store):
    batch, serial = minted(session).batch, session.token.info.serial
    put_onto(session, database, batch, store)

    def fail(_):
        raise TokenError("a test")

    for key_id in database.unfinished_keys(serial, ()):
        with pytest.raises(TokenError):
            database.give_up_keys(serial, [key_id], fail)
    for kek_id in database.unfinished_batch_keys(serial):
        with pytest.raises(TokenError):
            database.give_up_batch_key(serial, kek_id, fail)
    assert listed(database, serial) == GIVEN_UP[store]
    assert events(database) == []


def test_a_key_that_nothing_was_written_of_is_left_too(session, database):
    """As after the Key Database was put back to an older state."""
    booklet = minted(session, 1)
    put_onto(session, database, booklet.batch, "token")
    with database.engine.begin() as connection:
        connection.execute(schema.key_copies.delete())
    (key,) = booklet.keys
    found = database.unfinished_keys(session.token.info.serial, OneTimeKeys(session).listed())
    assert found == [key_id_of(key.public_key)]
    assert _give_up(database, session, yes=True) == (1, 0)
    assert held(session) == (0, 0)
