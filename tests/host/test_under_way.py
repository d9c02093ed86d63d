"""A revocation while an import is under way: none of the pairs that it brings becomes valid."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from msgspec import structs

from carnet import audit, interface
from carnet.database import alone
from carnet.errors import RefusedError, TokenError, UsageError
from carnet.progress import no_bar
from carnet.wire.keys import key_id_of
from host_agent import arrival, officer_interface, schema
from host_agent.importing import _check_pairs_stand, record_batch
from host_agent.keydb import Reason, Revocation
from host_agent.revoked_meanwhile import check_not_revoked, revoked_of_it, under_way
from host_agent.revoking import Revoked, lines, revoke
from lab.waiting import wait_until
from tests.host.batches import Officer, host_config, opened, split_batch, write
from tests.host.test_accounts import lift
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


def interface_of(database, directory):
    Officer(directory)
    return officer_interface.OfficerInterface(host_config(directory), database, None, None)


@pytest.mark.parametrize("which", ["user_id", "token_serial"])
def test_what_an_import_brings_is_revoked_with_what_is_there(database, pair, which):
    batch = split_batch(PAIRS)
    with importing(database, batch) as finish:
        done = revoke(database, STOLEN, **{which: getattr(batch, which)})
        assert (len(done.key_ids), done.importing) == (1, PAIRS)
        assert revoke(database, STOLEN, user_id=batch.user_id).importing == PAIRS
        assert finish() == PAIRS
        assert revoke(database, STOLEN, user_id=batch.user_id).importing == 0
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


class Away:
    """An HSM token that is."""

    def kept_open(self, *_):
        raise TokenError("away")


def test_a_revocation_elsewhere_waits_for_a_batch_that_the_officer_has_sent(
    database, other_process, pair, tmp_path, monkeypatch
):
    """Whose it is, is known when it is verified; what is known is revoked before."""
    batch, verify, revoking = split_batch(PAIRS), officer_interface.open_batch, []

    def open_batch(*about):
        revoking.append(threads.submit(revoke, other_process, STOLEN, user_id=batch.user_id))
        wait_until(lambda: states(database) == {"lost": 1}, "what is known to be revoked")
        return verify(*about)

    monkeypatch.setattr(officer_interface, "open_batch", open_batch)
    path = write(tmp_path / "batch", batch, Officer(tmp_path))
    made = officer_interface.OfficerInterface(host_config(tmp_path), database, None, None)
    with ThreadPoolExecutor(1) as threads, path.open("rb", buffering=0) as spool:
        with pytest.raises(TokenError, match="away"):
            made._import(spool, Away(), lambda: None)
        done = revoking[0].result()
    assert (len(done.key_ids), done.importing) == (1, PAIRS)
    with importing(database, batch) as finish:
        finish()
    assert states(database) == {"lost": 1 + PAIRS}


def test_a_batch_that_came_and_was_written_down_before_anybody_looks_is_revoked(
    database, pair, monkeypatch
):
    batch, begun = split_batch(PAIRS), ExitStack()

    def arrived(_):
        begun.enter_context(importing(database, batch))
        return True

    monkeypatch.setattr(arrival, "_is_free", arrived)
    with begun:
        done = revoke(database, STOLEN, user_id=batch.user_id)
        assert (len(done.key_ids), done.importing) == (1, PAIRS)


def test_a_revocation_does_not_wait_for_ever_for_a_batch(database, pair, monkeypatch):
    monkeypatch.setattr(arrival, "WAIT_SECONDS", 0)
    with (
        arrival.arriving(database),
        pytest.raises(UsageError, match=r"known of it is revoked, .* revoke it again"),
    ):
        revoke(database, STOLEN, key_id=key_id_of(pair.public_key))
    assert states(database) == {"lost": 1}


def test_the_officer_s_revokes_what_is_known_before_it_waits_for_her_batch(
    database, pair, tmp_path, monkeypatch
):
    monkeypatch.setattr(officer_interface, "WAIT_SECONDS", 0)

    async def revoked():
        made = interface_of(database, tmp_path)
        made._written_down.clear()
        await made._revoked(interface.Revocation(user_id="alice@office", why="stolen", lost=True))

    with pytest.raises(UsageError, match=r"known of it is revoked, .* revoke it again"):
        asyncio.run(revoked())
    assert states(database) == {"lost": 1}


def test_revocations_that_wait_for_a_batch_keep_no_request_waiting(
    database, other_process, pair, tmp_path
):
    """However many are sent, and hung up on."""
    wanted = interface.Revocation(user_id="alice@office", why="stolen", lost=True)

    async def revoked():
        made = interface_of(database, tmp_path)
        with arrival.arriving(other_process):
            waiting = [asyncio.create_task(made._revoked(wanted)) for _ in range(40)]
            await asyncio.sleep(0)
            assert await asyncio.to_thread(lambda: "a request")
            assert not any(each.done() for each in waiting)
        await asyncio.gather(*waiting)

    asyncio.run(revoked())


def test_the_pair_of_a_tunnel_is_said_to_be_used_and_not_that_none_is_revoked():
    assert list(lines(Revoked([b"key"], 0, 1), 0, 0, 1)) == [
        "1 key pair revoked, 1 live tunnel will be ended."
    ]
    assert list(lines(Revoked([], 0, 1), 0, 0, 1)) == [
        "1 live tunnel will be ended; no key pair is left to revoke, a tunnel's is used already."
    ]


def test_an_import_that_is_over_in_between_is_told_of():
    assert Revoked([], 3, 0).and_then(Revoked([b"key"], 0, 1)) == Revoked([b"key"], 3, 1)


def test_whoever_looks_for_a_batch_and_stands_still_holds_it_up_for_a_time_only(
    database, other_process, monkeypatch
):
    monkeypatch.setattr(arrival, "WAIT_SECONDS", 0)
    with (
        alone(other_process.engine, "arrives"),
        pytest.raises(UsageError, match=r"stands still; .* send the batch again"),
        arrival.arriving(database),
    ):
        raise AssertionError


@pytest.mark.parametrize("first", ["this", "other"])
def test_it_concerns_the_same_pairs_in_the_batch_for_another_hsm(database, first):
    batch = split_batch(PAIRS)
    other = structs.replace(batch, batch_id=bytes(16))
    with importing(database, batch) as finish:
        assert revoke(database, STOLEN, user_id=batch.user_id).importing == PAIRS
        with importing(database, other) as finish_other:
            assert revoke(database, STOLEN, user_id=batch.user_id).importing == PAIRS
            for record_it in (finish, finish_other) if first == "this" else (finish_other, finish):
                record_it()
                assert states(database) == {"lost": PAIRS}
    assert len(records(database, "revoked")) == PAIRS


def test_it_concerns_what_is_valid_by_another_batch_once_it_is_recorded(database):
    """A revocation of which no early mark is left, as an older version made it."""
    batch = split_batch(PAIRS)
    with importing(database, batch) as finish:
        revoke(database, STOLEN, user_id=batch.user_id)
        with database.engine.begin() as connection:
            lift(connection)
            connection.execute(schema.revoked_early.delete())
        with importing(database, structs.replace(batch, batch_id=bytes(16))) as finish_other:
            finish_other()
        assert states(database) == {"valid": PAIRS}
        finish()
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


def key_ids(batch):
    return [key_id_of(each.public_key) for each in batch.pairs]


@pytest.mark.parametrize("named", [lambda key_id: key_id, lambda key_id: [bytes(16), key_id]])
def test_a_pair_is_revoked_by_its_key_id_before_it_is_recorded(database, pair, named):
    batch = split_batch(PAIRS)
    revoked = key_ids(batch)[1]
    with importing(database, batch) as finish:
        done = revoke(database, STOLEN, key_id=named(revoked))
        assert (done.key_ids, done.importing) == ([], 1)
        assert revoke(database, STOLEN, key_id=named(revoked)).importing == 1
        assert finish() == PAIRS
        assert revoke(database, STOLEN, key_id=named(revoked)).importing == 0
    assert states(database) == {"valid": 1 + PAIRS - 1, "lost": 1}
    assert database.find_pair(revoked).state == "invalid"
    (told,) = records(database, "revoked")
    assert (told.facts["key_id"], told.facts["why"]) == (revoked, "stolen")
    with opened(batch) as (file, _):
        check_not_revoked(file, database)
        assert revoked_of_it(file, database).startswith("1 of these key pairs was revoked")
    assert database.revoked_early(bytes(16)) == 0


def test_a_pair_that_was_revoked_by_its_key_id_stays_so_whatever_brings_it(database):
    batch = split_batch(PAIRS)
    revoked = key_ids(batch)[0]
    with importing(database, batch):
        pass  # it was cut off
    assert revoke(database, STOLEN, key_id=revoked).importing == 1
    database.forget_imports()
    assert revoke(database, STOLEN, key_id=key_ids(batch)[1]).importing == 0
    again = structs.replace(batch, batch_id=bytes(16))
    with importing(database, again) as finish:
        finish()
    assert states(database) == {"valid": PAIRS - 1, "lost": 1}
    assert database.find_pair(revoked).state == "invalid"


def test_an_import_that_an_older_version_began_is_known_once_it_goes_on(database):
    batch = split_batch(PAIRS)
    with importing(database, batch):
        pass
    with database.engine.begin() as connection:
        connection.execute(schema.imports.update().values(key_ids=None))
    assert revoke(database, STOLEN, key_id=key_ids(batch)[0]).importing == 0
    with importing(database, batch) as finish:
        assert revoke(database, STOLEN, key_id=key_ids(batch)).importing == PAIRS
        finish()
    assert states(database) == {"lost": PAIRS}


def test_both_ways_of_revoking_an_import_tell_their_own_reason(database):
    batch = split_batch(PAIRS)
    with importing(database, batch) as finish:
        revoke(database, Revocation("burned"), key_id=key_ids(batch)[0])
        revoke(database, STOLEN, user_id=batch.user_id)
        assert revoke(database, Revocation("burned"), key_id=key_ids(batch)[1]).importing == 1
        finish()
    assert states(database) == {"revoked": 1, "lost": PAIRS - 1}


def test_a_pair_that_is_imported_again_is_revoked_as_one_that_is_known(database):
    batch = split_batch(PAIRS)
    with importing(database, batch) as finish:
        finish()
    with importing(database, batch) as finish:
        done = revoke(database, STOLEN, key_id=key_ids(batch)[:1])
        assert (done.key_ids, done.importing) == (key_ids(batch)[:1], 0)
        finish()
    assert states(database) == {"valid": PAIRS - 1, "lost": 1}


@stores
def test_the_key_of_a_pair_that_was_revoked_as_it_came_is_destroyed_or_not_kept(
    session,  # noqa: F811
    database,
    store,
):
    batch = minted(session).batch
    put_onto(session, database, batch, store)
    revoke(database, STOLEN, key_id=key_ids(batch)[0])
    assert record(database, batch, store) == PAIRS
    assert database.keys_to_destroy(session.token.info.serial) == key_ids(batch)[:1]
    kept = [bool(database.wrapped_keys(each)) for each in key_ids(batch)]
    assert kept == [False, store == "wrapped"]


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
