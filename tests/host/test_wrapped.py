"""The key store `wrapped`: what is on the HSM, what is in the Key Database, and when it is gone.

A real SoftHSM2 token, on both databases.
"""

import asyncio
import random
import secrets
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from pkcs11 import Attribute, ObjectClass
from structlog.testing import capture_logs

from carnet import audit
from carnet.audit import chain
from carnet.database import forget_deleted
from carnet.database.place import FilePlace
from carnet.errors import RefusedError, TokenError
from carnet.progress import no_bar
from carnet.token.batch_keys import BatchKeys
from carnet.token.onetime import OneTimeKeys
from carnet.wire.documents import BatchPair
from carnet.wire.envelope import open_response, parse_envelope, seal_request
from carnet.wire.keys import key_id_of
from carnet.wire.messages import Refusal, RefusalCode
from carnet.wire.suites import P256, P384, RSA_SHA1
from host_agent import schema
from host_agent.config import TokenSection
from host_agent.exchange import Parts, destroy_key
from host_agent.hsm import open_hsm
from host_agent.hsm_service import HsmAwayError
from host_agent.importing import other_store, store_for, wrapped_onto_hsm
from host_agent.keydb import OWED, KeyDatabase, KeyStoreName, WrappedKey
from host_agent.keystore.store import kek_id_of
from host_agent.keystore.stores import store_of
from host_agent.keystore.token import TokenStore
from host_agent.keystore.wrapped import Forgetting, sweep_wrapped
from host_agent.leases import Leases
from host_agent.server import HostService
from tests.host.batches import SessionToken, opened
from tests.host.booklets import HostToken
from tests.host.conftest import new_pair
from tests.token.helpers import PIN
from tests.unit.examples import SoftwareKey, make_request

PATIENCE = 20
REFUSAL = Refusal(
    request_id=bytes(16), code=RefusalCode.TOO_LATE, reason="a test", invalid_pairs=()
)


def id_of(key):
    return key_id_of(key.public_key)


@dataclass
class Office:
    """A Host's token, and its Key Database."""

    token: HostToken
    tokens: Path
    database: KeyDatabase
    hsm: Any = None

    def take_in(self, booklet, store="wrapped"):
        return self.token.take_in(booklet.batch, self.database, store)

    def on_token(self):
        """Which pairs, and keys of which batches, are on the token."""
        with self.token.session() as session:
            pairs = {pair.key_id for pair in OneTimeKeys(session).pairs()}
            # The transport key is the one private key that stays.
            assert len(session.find(ObjectClass.PRIVATE_KEY, {})) == len(pairs) + 1
            secret = session.find(ObjectClass.SECRET_KEY, {Attribute.TOKEN: True})
            batches = BatchKeys(session).held()
            assert len(secret) == len(batches)
            return pairs, batches

    @asynccontextmanager
    async def serving(self):
        async with open_hsm(TokenSection(token="host"), PIN) as self.hsm:
            self.back = asyncio.Event()
            self.hsm.on_return = self.back.set
            yield self.hsm

    async def serve(self, key):
        """Open a request under a pair and answer it, both on the HSM."""
        suite, pair = key.suite, self.database.find_pair(id_of(key))
        data = seal_request(make_request(), key.public_key, suite, key)
        envelope = parse_envelope(data)
        half = await store_of(pair.key_store).half_of(self.database, pair)
        signed = await self.hsm.open_request(envelope, key.public_key, half)
        assert signed.request == make_request()
        sealed = await self.hsm.seal_response(REFUSAL, envelope, key.public_key, half)
        assert open_response(sealed, envelope, key.public_key, key) == REFUSAL

    async def burn(self, key):
        pair = self.database.find_pair(id_of(key))
        await destroy_key(self.parts(), pair)

    def parts(self):
        return Parts(self.database, self.hsm, None, Leases(self.database), None)

    def take_away(self):
        self.tokens.rename(self.tokens.with_name("away"))
        self.tokens.mkdir()

    def put_back(self):
        self.tokens.rmdir()
        self.tokens.with_name("away").rename(self.tokens)

    def states(self):
        return [(each.pairs, each.state) for each in self.database.batch_keys()]

    def events(self):
        with self.database.begin() as connection:
            return [record.event for record in audit.read(connection, schema.audit)]


@pytest.fixture
def office(directory, module, make_token, database):
    make_token("host")
    token = HostToken(module, "host", PIN)
    return Office(token, directory / "softhsm" / "tokens", database)


@pytest.mark.parametrize("suite", [P256, P384, RSA_SHA1], ids=lambda suite: suite.name)
def test_a_pair_is_on_the_hsm_for_as_long_as_it_is_used(office, suite):
    booklet = office.token.booklet(1, suite)
    assert office.take_in(booklet) == 1
    (key,), kek_id = booklet.keys, kek_id_of(booklet.batch)
    assert office.on_token() == (set(), {kek_id})
    assert office.database.find_pair(id_of(key)).key_store is KeyStoreName.WRAPPED

    async def main():
        async with office.serving():
            await office.serve(key)
            await office.serve(key)

    asyncio.run(main())
    assert office.on_token() == (set(), {kek_id})


def batch_keys_of(office):
    """The KEKs, but for the moment at which each was taken in last."""
    return [
        replace(each, imported_at=bool(each.imported_at)) for each in office.database.batch_keys()
    ]


def test_importing_twice_changes_nothing(office):
    booklet = office.token.booklet(3)
    assert office.take_in(booklet) == 3
    before = office.on_token(), batch_keys_of(office)
    assert office.take_in(booklet) == 0
    assert (office.on_token(), batch_keys_of(office)) == before
    assert office.states() == [(3, "in use")]


def test_the_key_of_a_batch_goes_with_its_last_pair(office):
    booklet, other = office.token.booklet(3), office.token.booklet(1)
    office.take_in(booklet)
    office.take_in(other)
    kek_ids = {kek_id_of(each.batch) for each in (booklet, other)}
    first, second, last = booklet.keys

    async def main():
        async with office.serving():
            await office.burn(first)
            await office.burn(second)
            await office.burn(second)
            with pytest.raises(TokenError, match="is destroyed"):
                await office.serve(first)
            await office.serve(last)

    asyncio.run(main())
    assert office.on_token() == (set(), kek_ids)
    assert "batch-key-destroyed" not in office.events()

    async def end():
        async with office.serving():
            await office.burn(last)

    asyncio.run(end())
    assert office.on_token() == (set(), {kek_id_of(other.batch)})
    assert sorted(office.states()) == [(0, "destroyed"), (1, "in use")]
    assert office.events().count("batch-key-destroyed") == 1
    assert office.events().count("key-destroyed") == 3


def test_a_batch_whose_key_is_destroyed_does_not_come_back(office):
    booklet = office.token.booklet(1)
    office.take_in(booklet)

    async def main():
        async with office.serving():
            office.database.revoke("a test", user_id="alice@office")
            await office.burn(booklet.keys[0])

    asyncio.run(main())
    assert office.take_in(booklet) == 0
    assert office.on_token() == (set(), set())
    longer = booklet.changed(pairs=(*booklet.batch.pairs, booklet.pair(2, SoftwareKey())))
    with pytest.raises(RefusedError, match="was destroyed with its last pair"):
        office.token.take_in(longer, office.database)
    assert office.on_token() == (set(), set())
    assert office.states() == [(0, "destroyed")]


@pytest.mark.parametrize("spoilt", [0, 2])
def test_a_batch_with_a_pair_that_does_not_unwrap_is_refused_whole(office, spoilt):
    booklet = office.token.booklet(3)
    pairs = list(booklet.batch.pairs)
    good = pairs[spoilt]
    pairs[spoilt] = BatchPair(
        label=good.label, public_key=good.public_key, wrapped=pairs[1].wrapped
    )
    with pytest.raises(TokenError):
        office.token.take_in(booklet.changed(pairs=tuple(pairs)), office.database)
    assert [office.database.find_pair(id_of(key)) for key in booklet.keys] == [None] * 3
    assert office.on_token() == (set(), set())
    assert office.take_in(booklet) == 3


def test_hosts_with_an_hsm_each_have_a_wrapped_key_each(office, module, make_token):
    make_token("other")
    other = HostToken(module, "other", PIN)
    booklet = office.token.booklet(2)
    first, last = booklet.keys
    for_other = other.booklet(0)
    pairs = tuple(for_other.pair(*each) for each in enumerate(booklet.keys, 1))
    assert office.take_in(booklet) == 2
    for _ in range(2):
        assert other.take_in(for_other.changed(pairs=pairs), office.database) == 0
    assert office.states() == [(2, "in use"), (2, "in use")]
    assert office.events().count("imported") == 2

    async def at_the_other():
        async with open_hsm(TokenSection(token="other"), PIN) as office.hsm:
            await office.serve(first)
            await office.burn(first)

    async def at_the_first():
        async with office.serving() as hsm:
            await office.serve(last)
            with capture_logs() as logs:
                await office.burn(last)
            assert sorted(office.states()) == [(0, "destroyed"), (0, "destruction owed")]
            # Of the other's it has nothing to say.
            said = [line["serial"] for line in logs if line["event"] == "batch-key-destroyed"]
            assert said == [hsm.serial]

    async def sweep():
        async with open_hsm(TokenSection(token="other"), PIN) as hsm:
            await sweep_wrapped(office.database, hsm, Forgetting())

    asyncio.run(at_the_other())
    assert office.states() == [(1, "in use"), (1, "in use")]
    asyncio.run(at_the_first())
    asyncio.run(sweep())
    assert office.states() == [(0, "destroyed"), (0, "destroyed")]
    with other.session() as session:
        assert BatchKeys(session).held() == frozenset()


def test_a_copy_that_another_hosts_hsm_may_hold_keeps_no_wrapped_key(office, module, make_token):
    """The other began to import in store `token`, was cut off, and does not come back."""
    make_token("other")
    other = HostToken(module, "other", PIN)
    booklet, for_other = office.token.booklet(2), other.booklet(0)
    pairs = tuple(for_other.pair(*each) for each in enumerate(booklet.keys, 1))
    with (
        other.session() as session,
        opened(for_other.changed(pairs=pairs)) as (file, _),
        no_bar("", 0) as advance,
    ):
        list(wrapped_onto_hsm(file, SessionToken(session), office.database, advance))
    office.take_in(booklet)
    office.database.revoke("a test", user_id="alice@office")
    key_ids = {id_of(key) for key in booklet.keys}

    async def sweep(label):
        async with open_hsm(TokenSection(token=label), PIN) as office.hsm:
            await HostService(office.parts()).sweep.destroy_keys()

    asyncio.run(sweep("host"))
    assert [office.database.wrapped_keys(each) for each in key_ids] == [[], []]
    assert office.states() == [(0, "destroyed")]
    assert set(office.database.keys_to_destroy()) == key_ids
    asyncio.run(sweep("other"))
    assert office.database.keys_to_destroy() == []
    with other.session() as session:
        assert OneTimeKeys(session).listed() == frozenset()


@pytest.mark.parametrize(("before", "setting"), [("token", "wrapped"), ("wrapped", "token")])
def test_a_host_of_another_setting_takes_pairs_in_where_they_are(
    office, module, make_token, before, setting
):
    make_token("other")
    other = HostToken(module, "other", PIN)
    booklet, for_other = office.token.booklet(1), other.booklet(0)
    (key,) = booklet.keys
    batch = for_other.changed(pairs=(for_other.pair(1, key),))
    with opened(batch) as (file, anybodys):
        config = structs.replace(anybodys, token=TokenSection(key_store=KeyStoreName(setting)))
        assert store_for(file, office.database, config).name == setting
        office.take_in(booklet, before)
        store = store_for(file, office.database, config)
        assert f"`key_store` is `{setting}` here" in other_store(file, store, config)
    assert store.name == before
    assert other.take_in(batch, office.database, store.name) == 0

    async def at_the_other():
        async with open_hsm(TokenSection(token="other"), PIN) as office.hsm:
            await office.serve(key)

    asyncio.run(at_the_other())


# Switching from one store to the other


@pytest.mark.parametrize(("before", "after"), [("token", "wrapped"), ("wrapped", "token")])
def test_what_is_in_one_store_goes_on_from_there(office, before, after):
    older, newer = office.token.booklet(1), office.token.booklet(1)
    office.take_in(older, before)
    office.take_in(newer, after)
    assert office.take_in(older, after) == 0
    stores = [office.database.find_pair(id_of(each.keys[0])).key_store for each in (older, newer)]
    assert stores == [before, after]

    async def main():
        async with office.serving():
            for booklet in (older, newer):
                await office.serve(booklet.keys[0])
                await office.burn(booklet.keys[0])

    asyncio.run(main())
    assert office.on_token() == (set(), set())


def test_what_an_import_into_the_other_store_left_on_the_hsm_is_destroyed(office):
    """It was cut off before it recorded a pair; then the setting was changed."""
    booklet = office.token.booklet(2)
    import_onto(office, booklet.batch, "token")
    assert office.on_token() == ({id_of(key) for key in booklet.keys}, set())
    assert office.take_in(booklet, "wrapped") == 2
    assert office.on_token() == (set(), {kek_id_of(booklet.batch)})

    async def main():
        async with office.serving() as hsm:
            office.database.revoke("a test", user_id="alice@office")
            for key in booklet.keys:
                await office.burn(key)
            assert office.database.keys_to_destroy(hsm.serial) == []

    asyncio.run(main())
    assert office.events().count("key-destroyed") == 2


def test_a_batch_that_is_finished_in_the_other_store_burns_its_key_too(office):
    booklet = office.token.booklet(2)
    import_onto(office, booklet.batch, "wrapped")
    assert office.states() == [(0, "import not finished")]
    assert office.take_in(booklet, "token") == 2

    async def main():
        async with office.serving() as hsm:
            await sweep_wrapped(office.database, hsm, Forgetting())

    asyncio.run(main())
    assert office.states() == [(0, "destroyed")]
    assert office.on_token() == ({id_of(key) for key in booklet.keys}, set())


def import_onto(office, batch, store):
    """Take the private keys in, and be cut off before a pair is recorded."""
    with office.token.session() as session, opened(batch) as (file, _), no_bar("", 0) as advance:
        hsm = SessionToken(session)
        list(wrapped_onto_hsm(file, hsm, office.database, advance, store_of(store)))


@pytest.mark.parametrize("is_written_down", ["before", "after", "never"])
def test_what_is_burned_while_its_batch_is_taken_in_is_burned_again(
    office, monkeypatch, is_written_down
):
    """The HSM lost the key; an import puts it back, and meanwhile its pair is burned.

    Whoever burns it may write that down when it is on the HSM again, or may have died.
    """
    booklet = office.token.booklet(1)
    office.take_in(booklet, "token")
    (key,), take = booklet.keys, TokenStore.take
    burned_meanwhile = TokenStore.burned_meanwhile

    def write_down(intake):
        office.database.record_destroyed(id_of(key), intake.serial)

    def too_late(self, intake, pair):
        office.database.revoke("a test", user_id="alice@office")
        if is_written_down == "before":
            write_down(intake)
        take(self, intake, pair)

    def looked_at(self, intake, *rest):
        found = burned_meanwhile(self, intake, *rest)
        if is_written_down == "after":
            write_down(intake)
        return found

    async def main():
        async with office.serving() as hsm:
            await hsm.destroy(id_of(key))
        with monkeypatch.context() as patched:
            patched.setattr(TokenStore, "take", too_late)
            patched.setattr(TokenStore, "burned_meanwhile", looked_at)
            assert office.take_in(booklet, "token") == 0
        assert office.on_token() == (set(), set())
        async with office.serving() as hsm:
            assert office.database.keys_to_destroy(hsm.serial) == []

    asyncio.run(main())


# The HSM goes away


def test_a_pair_is_burned_without_the_hsm_and_its_batchs_key_is_owed(office):
    booklet = office.token.booklet(1)
    office.take_in(booklet)

    async def main():
        async with office.serving() as hsm:
            office.take_away()
            with pytest.raises(TokenError):
                await office.serve(booklet.keys[0])
            with pytest.raises(HsmAwayError):
                await office.serve(booklet.keys[0])
            office.database.revoke("a test", user_id="alice@office")
            with capture_logs() as logs:
                await office.burn(booklet.keys[0])
            assert "batch-key-not-destroyed" in [line["event"] for line in logs]
            assert office.database.wrapped_keys(id_of(booklet.keys[0])) == []
            assert office.states() == [(0, "destruction owed")]
            office.put_back()
            await asyncio.wait_for(office.back.wait(), PATIENCE)
            await sweep_wrapped(office.database, hsm, Forgetting())

    asyncio.run(main())
    assert office.states() == [(0, "destroyed")]
    assert office.on_token() == (set(), set())


def test_after_the_hsm_was_away_pairs_are_unwrapped_again(office):
    booklet = office.token.booklet(1)
    office.take_in(booklet)

    async def main():
        async with office.serving():
            await office.serve(booklet.keys[0])
            office.take_away()
            with pytest.raises(TokenError):
                await office.serve(booklet.keys[0])
            office.put_back()
            await asyncio.wait_for(office.back.wait(), PATIENCE)
            await office.serve(booklet.keys[0])

    asyncio.run(main())


def test_a_key_that_comes_back_with_a_backup_of_the_token_is_destroyed_again(office):
    booklet, kek_id = office.token.booklet(1), None
    office.take_in(booklet)
    kek_id = kek_id_of(booklet.batch)

    async def burn():
        async with office.serving():
            office.database.revoke("a test", user_id="alice@office")
            await office.burn(booklet.keys[0])

    async def sweep():
        async with office.serving() as hsm:
            await sweep_wrapped(office.database, hsm, Forgetting())

    (token,) = [each for each in office.tokens.iterdir() if list(each.glob("*.object"))]
    backup = {path: path.read_bytes() for path in token.iterdir()}
    asyncio.run(burn())
    for path, content in backup.items():
        path.write_bytes(content)
    assert office.on_token() == (set(), {kek_id})
    with capture_logs() as logs:
        asyncio.run(sweep())
    assert office.on_token() == (set(), set())
    assert [each["event"] for each in logs].count("batch-key-destroyed") == 1


def test_a_wrapped_key_that_comes_back_into_the_database_is_owed_and_burned_again(office):
    """As by a page of an older file, or by hand."""
    booklet = office.token.booklet(2)
    office.take_in(booklet)
    burned, last = map(id_of, booklet.keys)
    database = office.database
    (kept,) = database.wrapped_keys(burned)

    async def sweep():
        async with office.serving():
            await HostService(office.parts()).sweep.destroy_keys()

    database.revoke("a test", key_id=[burned, last])
    asyncio.run(sweep())
    assert list(database.pairs(state=OWED)) == []
    with database.engine.begin() as connection:
        row = {"key_id": burned, **vars(kept)}
        connection.execute(schema.wrapped_keys.insert(), row)
    assert [each["key_id"] for each in database.pairs(state=OWED)] == [burned]
    assert sum(each.destruction_owed for each in database.count()) == 1
    events = office.events()
    with capture_logs() as logs:
        asyncio.run(sweep())
    assert "wrapped-key-deleted-again" in [line["event"] for line in logs]
    assert database.wrapped_keys(burned) == []
    assert list(database.pairs(state=OWED)) == []
    assert office.events() == events
    assert office.states() == [(0, "destroyed")]


# The sweep


@pytest.mark.parametrize("why", ["revoked", "expired"])
def test_what_is_invalid_is_burned_by_the_sweep(office, clock, why):
    booklet = office.token.booklet(2, not_after=int(clock.now) + 60)
    office.take_in(booklet)
    if why == "revoked":
        office.database.revoke("a test", user_id="alice@office")
    else:
        clock.move(61)
        assert len(office.database.expire()) == 2

    async def main():
        async with office.serving():
            await HostService(office.parts()).sweep.destroy_keys()

    asyncio.run(main())
    assert office.on_token() == (set(), set())
    assert office.database.keys_to_destroy() == []
    assert [office.database.wrapped_keys(id_of(key)) for key in booklet.keys] == [[], []]
    assert office.states() == [(0, "destroyed")]


# What is left in files


def test_nothing_of_a_burned_key_is_left_in_sqlites_files(tmp_path):
    """Neither in the file nor in its log, while rows around it come, stay and go."""
    path = tmp_path / "keys.sqlite"
    chosen = random.Random(4)  # noqa: S311  in which order is no secret
    with KeyDatabase.opened(FilePlace(path)) as database:
        wrapped = fill(database, 300)
        order = list(wrapped)
        chosen.shuffle(order)
        burned = []
        for start in range(0, 300, 30):
            for key_id in order[start : start + 30]:
                database.burn_wrapped(key_id)
                burned.append(wrapped[key_id])
            wrapped |= fill(database, 20)
            assert forget_deleted(database.engine)
            content = b"".join(each.read_bytes() for each in tmp_path.iterdir())
            assert not [each for each in burned if each in content]
            kept = [wrapped[key_id] for key_id in order[start + 30 :]]
            assert all(each in content for each in kept)


def test_a_log_that_somebody_reads_is_emptied_the_next_time(tmp_path):
    place = FilePlace(tmp_path / "keys.sqlite")
    with KeyDatabase.opened(place) as database, KeyDatabase.opened(place) as other:
        ((key_id, wrapped),) = fill(database, 1).items()
        forget_deleted(database.engine)
        reading = other.begin()
        reading.exec_driver_sql("SELECT * FROM key_pairs").fetchall()
        database.burn_wrapped(key_id)
        assert not forget_deleted(database.engine)
        reading.close()
        assert forget_deleted(database.engine)
        assert wrapped not in b"".join(each.read_bytes() for each in tmp_path.iterdir())


def test_who_shows_the_accounts_and_waits_for_his_reader_is_in_nobodys_way(tmp_path, monkeypatch):
    """As `audit show` does whose pager is left open."""
    monkeypatch.setattr(chain, "_ROWS_AT_ONCE", 2)
    place = FilePlace(tmp_path / "keys.sqlite")
    with KeyDatabase.opened(place) as database, KeyDatabase.opened(place) as other:
        ((key_id, wrapped),) = fill(database, 1).items()
        later, *_ = fill(database, 4)
        with other.begin() as connection:
            shown = audit.read(connection, schema.audit)
            numbers = [next(shown).number]
            database.burn_wrapped(key_id)
            assert forget_deleted(database.engine)
            assert wrapped not in b"".join(each.read_bytes() for each in tmp_path.iterdir())
            numbers += [each.number for each in shown]
            # All is read, and its reader still takes his time.
            database.burn_wrapped(later)
            assert forget_deleted(database.engine)
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) > 2


def test_a_log_that_cannot_be_emptied_for_long_is_told_of_once_an_hour(tmp_path):
    place = FilePlace(tmp_path / "keys.sqlite")
    with KeyDatabase.opened(place) as database, KeyDatabase.opened(place) as other:
        forgetting = Forgetting()

        def told_in(sweeps):
            with capture_logs() as logs:
                for _ in range(sweeps):
                    asyncio.run(forgetting.once(database))
            return [(each["event"], each["sweeps"]) for each in logs]

        fill(database, 1)
        with other.begin() as reading:
            reading.exec_driver_sql("SELECT * FROM key_pairs").fetchall()
            fill(database, 1)
            assert told_in(4) == []
            assert told_in(60) == [("deleted-keys-kept", 5)]
            assert told_in(1) == [("deleted-keys-kept", 65)]
        assert told_in(1) == []
        with other.begin() as reading:
            reading.exec_driver_sql("SELECT * FROM key_pairs").fetchall()
            fill(database, 1)
            assert told_in(5) == [("deleted-keys-kept", 5)]


def test_a_log_that_somebody_writes_is_left_and_the_connection_still_waits(tmp_path):
    place = FilePlace(tmp_path / "keys.sqlite")
    with KeyDatabase.opened(place) as database, KeyDatabase.opened(place) as other:
        fill(database, 1)
        with other.engine.begin():
            assert not forget_deleted(database.engine)
        with closing(database.engine.raw_connection()) as connection:
            (waits,) = connection.cursor().execute("PRAGMA busy_timeout").fetchone()
    assert waits == 30_000


def fill(database, count):
    """Add pairs with wrapped keys that are random bytes; return these by key_id."""
    made = {}
    for _ in range(count):
        key = SoftwareKey()
        made[id_of(key)] = secrets.token_bytes(152)
        pair = new_pair(key, key_store=KeyStoreName.WRAPPED)
        database.add_wrapped_pairs([(pair, WrappedKey(bytes(16), made[id_of(key)]))])
    return made
