"""The operator's commands on the Key Database: listing, revoking, the accounts."""

import json
import os
import secrets
import shutil
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from carnet.audit.chain import follow
from carnet.database.place import FilePlace
from carnet.errors import CarnetError, UsageError
from carnet.wire.control import TunnelEnded
from carnet.wire.keys import key_id_of
from host_agent import attendance, schema
from host_agent.cli import cli
from tests.commands import run
from tests.host.conftest import CONFIGURATION, new_pair, sealed_request
from tests.host.test_accounts import lift
from tests.unit.examples import SoftwareKey


@pytest.fixture
def carnet_host(place, database, tmp_path):
    """Run `carnet-host` on the test's Key Database; return what it prints."""
    if isinstance(place, FilePlace):
        lines = f'database = "{place.path}"'
    else:
        url = place.url.render_as_string(hide_password=False)
        lines = f'database = "{url}"\ndatabase_password_file = "{place.password_file}"'
    path = tmp_path / "host.toml"
    path.write_text(CONFIGURATION.format(database=lines))

    def run(*argv):
        done = CliRunner().invoke(cli, ["--config", str(path), *argv], catch_exceptions=True)
        if done.exception is not None:
            raise done.exception
        return done.output

    return run


def id_of(key):
    return key_id_of(key.public_key)


@pytest.fixture
def bobs(database):
    key = SoftwareKey()
    database.add_pairs([new_pair(key, user_id="bob@office", token_serial="2")])
    return key


@pytest.fixture
def answered(database):
    """Spend a pair and answer its request, as granted or not; return the Request ID."""

    def do(key, outcome="granted"):
        envelope, signed = sealed_request(key, request_id=secrets.token_bytes(16))
        database.spend(envelope, signed)
        database.store_response(envelope.key_id, outcome, b"answer")
        return signed.request.request_id

    return do


def test_keys_are_counted_by_user_and_state(carnet_host, database, pair, other_pair, bobs):
    database.revoke("a test", key_id=id_of(other_pair))
    database.record_destroyed(id_of(other_pair))
    assert carnet_host("keys").splitlines() == [
        "alice@office  revoked  1  token",
        "alice@office  valid  1  token",
        "bob@office  valid  1  token",
    ]
    assert carnet_host("keys", "--user", "bob@office") == "bob@office  valid  1  token\n"
    assert carnet_host("keys", "--state", "invalid") == "alice@office  revoked  1  token\n"
    assert carnet_host("keys", "--state", "revoked") == "alice@office  revoked  1  token\n"
    assert carnet_host("keys", "--state", "spent") == ""


def test_pairs_that_have_no_private_key_here_are_counted_as_split(carnet_host, database, bobs):
    pair = new_pair(SoftwareKey(), user_id="bob@office", custody="split", host_key_id=bytes(16))
    database.add_pairs([pair])
    assert carnet_host("keys").splitlines() == [
        "bob@office  valid  1  token",
        "bob@office  valid  1  split",
    ]


def test_a_key_whose_destruction_is_owed_is_listed_until_it_is_gone(
    carnet_host, database, pair, bobs, answered
):
    answered(pair)
    listed = f"alice@office  {id_of(pair).hex()}  destruction owed"
    assert listed in carnet_host("keys").splitlines()
    assert listed in carnet_host("keys", "--state", "owed").splitlines()
    assert listed not in carnet_host("keys", "--user", "bob@office")
    (owed,) = json.loads(carnet_host("keys", "--state", "owed", "--json"))
    assert owed["key_id"] == id_of(pair).hex()
    assert owed["destruction_owed"]
    database.record_destroyed(id_of(pair))
    assert "owed" not in carnet_host("keys")
    assert json.loads(carnet_host("keys", "--state", "owed", "--json")) == []


def test_the_key_of_a_request_without_an_answer_is_not_owed(carnet_host, database, pair):
    database.spend(*sealed_request(pair))
    assert carnet_host("keys") == "alice@office  spent  1  token\n"


@pytest.mark.parametrize(
    ("option", "value"), [("--user", "alice@office"), ("--token-serial", "1"), ("--key", None)]
)
def test_pairs_are_revoked_by_user_by_token_and_by_key(
    carnet_host, database, pair, bobs, option, value
):
    said = carnet_host("revoke", option, value or id_of(pair).hex(), "--reason", "stolen", "--json")
    assert json.loads(said) == {"revoked": [id_of(pair).hex()], "importing": 0, "tunnels": 0}
    assert not database.spend(*sealed_request(pair))
    assert database.spend(*sealed_request(bobs))
    accounts = carnet_host("audit", "show").splitlines()
    assert any("revoked" in line and "why=stolen" in line for line in accounts)
    with database.begin() as connection:
        assert all(link.holds for link in follow(connection, schema.audit))


def test_what_was_revoked_is_said_to_be_and_is_no_mistake(
    carnet_host, database, pair, other_pair, bobs, answered, monkeypatch
):
    monkeypatch.setattr(attendance, "is_served", lambda _: True)

    def again(*which):
        done = carnet_host("revoke", *which, "--reason", "stolen", "--json")
        assert json.loads(done) == {"revoked": [], "importing": 0, "tunnels": 0}
        return carnet_host("revoke", *which, "--reason", "stolen")

    answered(other_pair)
    answered(bobs, "unknown-user")
    assert "1 key pair revoked, 1" in carnet_host(
        "revoke", "--user", "alice@office", "--reason", "x"
    )
    assert "1 key pair and 1 tunnel were revoked" in again("--user", "alice@office")
    assert "1 key pair and 0 tunnels were revoked" in again("--key", id_of(pair).hex())
    assert "0 key pairs and 1 tunnel were revoked" in again("--key", id_of(other_pair).hex())
    for unknown in (("--user", "bob@office"), ("--key", bytes(16).hex())):
        with pytest.raises(UsageError, match="No valid key pair and no live tunnel"):
            again(*unknown)


@pytest.mark.parametrize("served", [True, False])
def test_who_revokes_a_tunnel_is_told_where_nobody_is_there_to_end_it(
    carnet_host, database, pair, monkeypatch, served
):
    envelope, signed = sealed_request(pair)
    database.spend(envelope, signed)
    database.store_response(envelope.key_id, "granted", b"answer")
    with socket.create_server(("127.0.0.1", 0)) as door:
        address, port = door.getsockname()
        if not served:
            door.close()
        is_served, at = attendance.is_served, SimpleNamespace(listen=address, port=port)
        monkeypatch.setattr(attendance, "is_served", lambda _: is_served(at))
        said, again = (
            carnet_host("revoke", "--user", "alice@office", "--reason", "stolen") for _ in "12"
        )
        database.record_end_asked("work", signed.request.request_id)
        told = carnet_host("revoke", "--user", "alice@office", "--reason", "stolen")
    for each in (said, again):
        assert "1 live tunnel will be ended" in each
        assert ("live on until it is started (systemctl start carnet-host)" in each) is not served
    assert "Nothing is left to do" in told
    assert "live on" not in told


@pytest.mark.parametrize("key", ["", "  ", "no key"])
def test_what_is_no_key_revokes_nothing(carnet_host, database, pair, key):
    with pytest.raises(UsageError, match="no key_id"):
        carnet_host("revoke", "--key", key, "--reason", "stolen")
    assert database.spend(*sealed_request(pair))


@pytest.mark.parametrize("reason", ["", " ", "x" * 401, "two\nlines", "\x1b[31mred"])
@pytest.mark.parametrize("command", [("revoke", "--user", "alice@office"), ("audit", "restored")])
def test_a_reason_is_as_long_as_the_officers_may_be(carnet_host, pair, command, reason):
    with pytest.raises(SystemExit) as ended:
        carnet_host(*command, "--reason", reason)
    assert ended.value.code == UsageError.exit_status


def test_only_tunnels_that_live_are_ended(
    database, carnet_host, pair, other_pair, bobs, answered, monkeypatch
):
    monkeypatch.setattr(attendance, "is_served", lambda _: True)
    live, refused = answered(pair), answered(bobs, "unknown-user")
    over = answered(other_pair)
    ended = TunnelEnded(number=1, request_id=over, reason="expired", ended_at=5)
    database.record_ended("work", (ended,))
    facts = json.loads(carnet_host("revoke", "--user", "alice@office", "--reason", "x", "--json"))
    assert facts == {"revoked": [], "importing": 0, "tunnels": 1}
    assert database.tunnels_to_end("work") == [live]
    assert database.tunnels_to_end("elsewhere") == []
    with pytest.raises(UsageError, match="no live tunnel"):
        carnet_host("revoke", "--user", "bob@office", "--reason", "x")
    assert refused not in database.tunnels_to_end("work")
    database.record_end_asked("work", live)
    assert database.tunnels_to_end("work") == []


def test_a_request_that_is_revoked_before_its_answer_is_ended_after_it(database, pair):
    envelope, signed = sealed_request(pair)
    database.spend(envelope, signed)
    assert database.revoke_tunnels("stolen", user_id="alice@office") == 1
    assert database.tunnels_to_end("work") == []
    database.store_response(envelope.key_id, "granted", b"answer")
    assert database.tunnels_to_end("work") == [signed.request.request_id]


@pytest.mark.parametrize("newest", [2**63 - 1, 2**63 - 2])
def test_where_no_record_can_follow_nothing_is_revoked(
    carnet_host, database, pair, other_pair, newest
):
    with database.engine.begin() as connection:
        lift(connection)
        connection.exec_driver_sql(f"UPDATE audit SET number = {newest} WHERE number = 2")  # noqa: S608
    with pytest.raises(
        CarnetError, match=r"^The accounts .* none that another can follow, so nothing was done"
    ):
        carnet_host("revoke", "--user", "alice@office", "--reason", "stolen")
    assert {each.state for each in database.count()} == {"valid"}


def test_the_accounts_are_shown_of_a_user_from_a_moment_on(carnet_host, database, pair):
    database.spend(*sealed_request(pair))
    database.add_pairs([new_pair(SoftwareKey(), user_id="bob@office", token_serial="2")])

    def shown(*argv):
        records = json.loads(carnet_host("audit", "show", *argv, "--json"))
        return [(each["event"], each["facts"]["user_id"]) for each in records]

    alices, bobs = "alice@office", "bob@office"
    assert shown("--user", alices, "--since", "1h") == [("imported", alices), ("spent", alices)]
    assert shown("--since", "1h")[2:] == [("imported", bobs)]
    assert shown("--user", alices, "--since", "2999-01-01") == []


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "command",
    [("keys",), ("revoke", "--user", "alice@office", "--reason", "stolen"), ("audit", "show")],
)
def test_where_the_database_was_moved_away_no_other_is_made(
    carnet_host, database, place, pair, command
):
    moved = place.path.rename(place.path.with_name("moved.sqlite"))
    with pytest.raises(UsageError, match="is gone, and its log"):
        carnet_host(*command)
    moved.rename(place.path)
    assert database.spend(*sealed_request(pair))


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_where_there_never_was_a_database_none_is_listed(carnet_host, database, place):
    database.engine.dispose()
    place.path.unlink()
    with pytest.raises(UsageError, match="There is no database"):
        carnet_host("keys")
    assert not place.path.exists()


def test_what_two_processes_hear_of_is_accounted_for_once(database, other_process, pair, answered):
    ended = TunnelEnded(number=1, request_id=answered(pair), reason="expired", ended_at=5)
    database.record_ended("work", (ended,))
    other_process.record_ended("work", (ended,))
    with database.begin() as connection:
        query = "SELECT count(*) FROM audit WHERE event = 'tunnel-ended'"
        assert connection.exec_driver_sql(query).scalar_one() == 1


def test_a_batch_or_head_that_is_not_there_is_said_with_what_to_do(carnet_host, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"No such file or directory; correct the path\.$"):
        carnet_host("import", nowhere)
    with pytest.raises(UsageError, match=r"; name one that `audit head` printed\.$"):
        carnet_host("audit", "verify", "--head", nowhere)


@pytest.mark.parametrize(
    "options", [("--name", 'Ünï"'), ("--target", "Work!", "https://a:1"), ("--target", "work", "x")]
)
def test_init_writes_nothing_that_the_next_command_refuses(tmp_path, options):
    path = tmp_path / "host.toml"
    with pytest.raises(UsageError, match="line "):
        CliRunner().invoke(
            cli, ["--config", str(path), "init", *options], catch_exceptions=False,
            standalone_mode=False,
        )  # fmt: skip
    assert not path.exists()


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_a_database_that_was_changed_is_said_in_a_sentence(carnet_host, database, pair):
    """SQLite keeps whatever it is given: a text where there were bytes."""
    database.revoke("a test", key_id=id_of(pair))
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE key_pairs SET key_id = label")
    with pytest.raises(CarnetError, match="it holds what was never written"):
        carnet_host("keys")


READ_ONLY = (
    *("unshare", "--mount", "sh", "-c"),
    'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"',
)
"""Has a command see a directory in which nothing can be written."""


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_a_database_that_is_kept_as_evidence_is_read_as_a_copy(carnet_host, place, pair, tmp_path):
    kept, copy, config = place.path, tmp_path / "copy", tmp_path / "host.toml"
    host = (Path(sys.executable).with_name("carnet-host"), "--config", config)
    done = run([*host, "audit", "show"], os.environ, before=(*READ_ONLY, str(kept.parent)))
    assert (done.returncode, done.stdout) == (2, "")
    assert "copy it and, where there is one, its -wal file" in done.stderr
    copy.mkdir(mode=0o700)
    for each in kept.parent.glob(f"{kept.name}*"):
        shutil.copy(each, copy)
    config.write_text(config.read_text().replace(f"{kept}", f"{copy / kept.name}"))
    assert "imported" in carnet_host("audit", "show")
