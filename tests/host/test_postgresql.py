"""The Key Database on PostgreSQL: what it asks of the server, and how it outlives it."""

import asyncio
import contextlib
import json
import signal
import socket
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy.exc import DBAPIError, OperationalError
from structlog.testing import capture_logs

from carnet.database import postgresql
from carnet.database.place import FilePlace, PostgresPlace
from carnet.errors import TokenError, UnreachableError, UsageError
from carnet.interface import BATCHES, PAIRS, REVOCATIONS
from carnet.service import serving
from carnet.wire.documents import sign_document
from carnet.wire.keys import key_id_of
from host_agent import config as configuration
from host_agent import in_time, officer_interface
from host_agent.keydb import KeyDatabase, PairState, Revocation
from host_agent.officer_interface import OfficerInterface, door_rules
from lab.postgresql import postgres_machine
from tests.host.batches import Officer, host_config, split_batch
from tests.host.conftest import CONFIGURATION, new_pair, postgres_place, sealed_request
from tests.host.postgres_proxy import measured
from tests.unit.examples import SoftwareKey


@pytest.fixture(scope="module")
def machine():
    """A server that these tests stop and start."""
    with postgres_machine() as made:
        yield made


@pytest.fixture
def server(machine):
    yield machine.start()
    machine.stop()


@pytest.fixture
def place(server):
    with server.database() as name:
        yield postgres_place(server, name)


def setting(place, name):
    with KeyDatabase.opened(place) as database, database.begin() as connection:
        return connection.exec_driver_sql(f"SHOW {name}").scalar_one()


def test_a_commit_is_durable_whatever_the_server_would_do_by_default(server, place):
    server.execute(f"ALTER DATABASE {place.url.database} SET synchronous_commit = off")
    assert setting(place, "synchronous_commit") == "on"


def test_a_server_that_promises_more_keeps_its_promise(server, place):
    server.execute(f"ALTER DATABASE {place.url.database} SET synchronous_commit = remote_apply")
    assert setting(place, "synchronous_commit") == "remote_apply"


def test_over_tcp_the_server_waits_for_nobody_who_takes_no_answer(machine, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("PGPORT", str(port))  # names its Unix socket, too
    server = machine.start(listen_addresses="127.0.0.1", port=str(port))
    place = postgres_place(server, "postgres")
    over_tcp = place.url.set(host="127.0.0.1").difference_update_query(["host"])
    engine = postgresql.open_engine(replace(place, url=over_tcp))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW tcp_user_timeout").scalar_one() == "10000"
    engine.dispose()
    machine.stop()


def test_isolation_does_not_depend_on_the_server(server, place):
    name = place.url.database
    server.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    with KeyDatabase.opened(place) as database, database._engine.begin() as connection:
        level = connection.exec_driver_sql("SHOW transaction_isolation").scalar_one()
    assert level == "read committed"


def test_a_server_that_does_not_sync_is_refused(machine):
    server = machine.start(fsync="off")
    with (
        pytest.raises(UsageError) as caught,
        KeyDatabase.opened(postgres_place(server, "postgres")),
    ):
        pass
    machine.stop()
    assert "fsync=off" in caught.value.sentence


def test_what_is_spent_survives_a_server_that_is_killed(machine):
    key = SoftwareKey()
    server = machine.start()
    server.execute("CREATE DATABASE killed")
    place = postgres_place(server, "killed")
    with KeyDatabase.opened(place) as database, KeyDatabase.opened(place) as idle:
        database.add_pairs([new_pair(key)])
        assert database.spend(*sealed_request(key))
        machine.stop(signal.SIGQUIT)
        with pytest.raises(OperationalError):
            database.find_pair(key_id_of(key.public_key))
        machine.start()
        # The idle one has connections that it does not know to be broken.
        for each in (database, idle):
            assert each.find_pair(key_id_of(key.public_key)).state is PairState.INVALID
        assert not database.spend(*sealed_request(key))
    machine.stop()


def spend_while_the_connection_breaks(database, server):
    with database._engine.begin() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        connection.exec_driver_sql("UPDATE key_pairs SET state = 'invalid', reason = 'spent'")
        server.execute(f"SELECT pg_terminate_backend({pid})")


def test_a_spend_whose_connection_breaks_spends_nothing(server, place):
    key = SoftwareKey()
    with KeyDatabase.opened(place) as database:
        database.add_pairs([new_pair(key)])
        with pytest.raises(OperationalError):
            spend_while_the_connection_breaks(database, server)
        assert database.find_pair(key_id_of(key.public_key)).state is PairState.VALID
        assert database.spend(*sealed_request(key))


def test_a_server_that_took_no_changes_for_a_while_takes_them_again(server, place):
    """A connection keeps the setting with which it began, until it is made anew."""
    name, pairs = place.url.database, [new_pair(SoftwareKey())]
    with KeyDatabase.opened(place) as database:
        server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        database._engine.dispose()
        with database._engine.connect(), database._engine.connect():
            pass
        with pytest.raises(DBAPIError, match="read-only"):
            database.add_pairs(pairs)
        server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        database.add_pairs(pairs)


def test_who_stands_still_in_a_brief_transaction_soon_keeps_nobody_waiting(
    server, place, monkeypatch
):
    """And keeps nothing of it; an import may take longer between two statements."""
    key = SoftwareKey()
    with KeyDatabase.opened(place) as database, KeyDatabase.opened(place) as other:
        database.add_pairs([new_pair(key)])
        with contextlib.ExitStack() as frozen:
            with monkeypatch.context() as short:
                short.setattr(postgresql, "_BRIEF", "1ms")
                connection = frozen.enter_context(database._brief.connect())
                connection.begin()
            assert other.spend(*sealed_request(key))
            with pytest.raises(DBAPIError):
                connection.exec_driver_sql("UPDATE key_pairs SET state = 'valid'")
        with database._writing(brief=False) as patient:
            shown = patient.exec_driver_sql("SHOW idle_in_transaction_session_timeout")
            assert shown.scalar_one() == "30s"
        with database._writing() as brief:
            shown = brief.exec_driver_sql("SHOW idle_in_transaction_session_timeout")
            assert shown.scalar_one() == "6s"


MANY = 3000
STOLEN = Revocation("stolen")
TUNNELS = """
    INSERT INTO requests (key_id, digest, request_id, target, objective_id, evidence, spent_at)
    SELECT key_id, key_id, key_id, 'site', 1, '', 0 FROM key_pairs
"""
"""One that every pair has."""
TAKEN_UNREAD = 64 * 1024
"""Bytes, of which the system takes some more for who does not read."""


def test_who_reads_nothing_under_the_lock_stands_still_between_two_statements(place, tmp_path):
    """There the server counts for how long; not while it waits to be rid of an answer."""
    key = SoftwareKey()
    named = [b"named" + number.to_bytes(11) for number in range(MANY)]
    with measured(place, tmp_path) as (through, found), KeyDatabase.opened(through) as database:
        database.add_pairs(new_pair(key, key_id=number.to_bytes(16)) for number in range(MANY))
        with database.begin() as connection:
            connection.exec_driver_sql(TUNNELS)
        database.begin_import(bytes(16), "bob@office", "2", named)
        found.most = 0
        assert database.revoke_imports(STOLEN, key_id=named[-1]) == 1
        assert database.revoke_imports(STOLEN, token_serial="2") == MANY
        assert len(database.revoke("stolen", user_id="alice@office")) == MANY
        assert database.revoke_tunnels("stolen", user_id="alice@office") == MANY
        assert 0 < found.most < TAKEN_UNREAD


POOLED = 5
"""Connections that are kept for whoever wants one; a new one is given up after 5 seconds."""


class NoHsm:
    serial = None

    async def use_session(self, _):
        raise TokenError("The HSM is away.")


@pytest.fixture
def interface(tmp_path, monkeypatch):
    """Run a coroutine function with an officer's interface, which takes whoever comes for her."""

    def run(database, body):
        async def main():
            made = OfficerInterface(host_config(tmp_path), database, NoHsm(), None)
            runner = web.ServerRunner(made.server())
            async with (
                serving(runner, door_rules(), "127.0.0.1", 0) as port,
                aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
            ):
                return await body(made, session)

        return asyncio.run(main())

    monkeypatch.setattr(OfficerInterface, "_is_officer", lambda *_: True)
    return run


def test_the_officer_is_told_to_come_again_while_the_server_hangs(
    server, place, tmp_path, interface, monkeypatch
):
    """Whatever she wants; what was begun goes on when it hangs no more."""
    batch = sign_document(split_batch(1), Officer(tmp_path).sign)
    revocation = json.dumps({"user_id": "alice@office", "why": "stolen"})
    wanted = [("POST", BATCHES, batch), ("POST", REVOCATIONS, revocation), ("GET", PAIRS, None)]

    async def body(made, session):
        async def heard(method, path, data):
            async with session.request(method, path, data=data) as answer:
                return answer.status, answer.headers.get("Retry-After"), await answer.text()

        assert (await heard("GET", PAIRS, None))[0] == 200
        with server.frozen(), monkeypatch.context() as soon:
            soon.setattr(in_time, "ANSWER_SECONDS", 0.1)
            soon.setattr(officer_interface, "_STOP_SECONDS", 0.1)
            for each in wanted:
                status, seconds, text = await heard(*each)
                assert (status, seconds, "does not answer" in text) == (503, "2", True)
            await made.stop()
            assert not made._importing.done()
        await asyncio.wait([made._importing])
        assert str(made._importing.exception()) == "The HSM is away."
        assert (await heard("GET", PAIRS, None))[0] == 200

    with KeyDatabase.opened(place) as database, capture_logs() as logs:
        with contextlib.ExitStack() as at_once:
            for _ in range(POOLED):
                at_once.enter_context(database.engine.connect())
        interface(database, body)
    assert "The HSM is away." in [each.get("failure") for each in logs]


def test_a_server_that_is_away_is_said_in_one_sentence(tmp_path):
    place = PostgresPlace.parse(f"postgresql://carnet:geheim@/keys?host={tmp_path}")
    with pytest.raises(UsageError) as caught, KeyDatabase.opened(place):
        pass
    assert "start PostgreSQL, or correct `database`" in caught.value.sentence
    assert caught.value.exit_status == UnreachableError.exit_status, "systemd begins a service anew"
    assert "\n" not in caught.value.sentence
    assert "geheim" not in caught.value.sentence
    assert "geheim" not in repr(place)


def test_a_password_that_is_wrong_is_said_and_not_shown(server, place, tmp_path):
    wrong = tmp_path / "password"
    wrong.touch(mode=0o600)
    wrong.write_text("geheim\n")
    with (
        pytest.raises(UsageError) as caught,
        KeyDatabase.opened(replace(place, password_file=wrong)),
    ):
        pass
    assert "password authentication failed" in caught.value.sentence
    assert "geheim" not in caught.value.sentence


def test_a_password_that_others_can_read_is_refused(place, tmp_path):
    readable = tmp_path / "password"
    readable.write_text("geheim\n")
    readable.chmod(0o644)
    with (
        pytest.raises(UsageError, match="chmod 600"),
        KeyDatabase.opened(replace(place, password_file=readable)),
    ):
        pass


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://carnet@db.example.org/keys", "verify-full"),
        ("postgresql:///keys?host=db.example.org", "verify-full"),
        ("postgresql://carnet@db.example.org/keys?sslmode=require", None),
        ("postgresql://carnet@127.0.0.1/keys", None),
        ("postgresql:///keys?host=/run/postgresql", None),
        ("postgresql:///keys", None),
    ],
)
def test_over_a_network_the_server_must_prove_who_it_is(url, mode):
    assert postgresql.connect_arguments(PostgresPlace.parse(url)).get("sslmode") == mode


@pytest.fixture
def configured(tmp_path):
    def load(*lines, mode=0o600):
        path = tmp_path / "host.toml"
        path.write_text(CONFIGURATION.format(database="\n".join(lines)))
        path.chmod(mode)
        return configuration.load(path)

    return load


def test_the_key_database_is_a_file_unless_said_otherwise(configured, tmp_path):
    assert configured('directory = "var"').key_database == FilePlace(tmp_path / "var/keys.sqlite")
    assert configured('database = "k.db"').key_database == FilePlace(tmp_path / "k.db")
    assert configured('database = "new/"').key_database == FilePlace(tmp_path / "new/keys.sqlite")


def test_a_url_is_a_postgresql_database(configured, tmp_path):
    place = configured(
        'database = "postgresql://carnet@/keys"', 'database_password_file = "secret"'
    ).key_database
    assert place.url.database == "keys"
    assert place.password_file == tmp_path / "secret"


@pytest.mark.parametrize("url", ["mysql://a@b/c", "postgresql://", "postgresql://a:pw@h:x/d"])
def test_a_url_that_is_none_is_refused_with_its_line_and_without_its_password(configured, url):
    with pytest.raises(UsageError, match="line 6") as caught:
        configured(f'database = "{url}"')
    assert "pw" not in caught.value.sentence


def test_a_password_in_a_file_that_others_read_is_refused(configured):
    line = 'database = "postgresql://carnet:geheim@/keys"'
    assert configured(line).key_database.url.password == "geheim"
    with pytest.raises(UsageError, match="chmod 600"):
        configured(line, mode=0o644)
