"""What comes of what the officer sends: batches that are taken once, keys on the HSM, burns."""

import json
import shlex
import socket

import pytest
from msgspec import structs

from carnet import audit
from carnet.interface import BATCHES, PAIRS
from carnet.token.batch_keys import BatchKeys
from carnet.token.host_keys import make_host_keys
from carnet.token.onetime import OneTimeKeys
from carnet.wire.envelope import seal_request
from carnet.wire.keys import key_id_of
from carnet.wire.suites import P256
from host_agent import schema
from host_agent.keydb import KeyDatabase
from host_agent.keystore.store import kek_id_of
from lab.fake_piv import DEFAULT_PIN
from lab.machine import Machine
from lab.readers import OPENSC, Card, CardReaders, loopback
from lab.waiting import wait_until
from tests.host.batches import pem_of
from tests.host.interface import host_with_interface
from tests.host.real_host import http, read_all, status_of
from tests.unit.examples import make_request


@pytest.fixture
def interface(tmp_path, place, monkeypatch):
    """A Host that does not serve yet."""
    with host_with_interface(tmp_path, place, monkeypatch) as made:
        yield made


SIGNS = 0x87
"""The instruction GENERAL AUTHENTICATE."""
sqlite_is_enough = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


def signed(interface, batch):
    return interface.officer.sign(batch)


def post(interface, batch):
    return interface.ask("POST", BATCHES, signed(interface, batch))


def test_a_batch_is_taken_in_once_and_accounted_for(interface, tmp_path):
    interface.start()
    path = tmp_path / "batch"
    path.write_bytes(signed(interface, interface.split_batch(5)))
    sent = [interface.provision("send", path, *interface.host, "--json") for _ in range(2)]
    assert [json.loads(each.stdout) for each in sent] == [
        {"user_id": "alice@office", "pairs": 5, "new": 5},
        {"user_id": "alice@office", "pairs": 5, "new": 0},
    ]
    assert json.loads(interface.ask("GET", PAIRS).body) == [
        {
            "user_id": "alice@office",
            "state": "valid",
            "custody": "split",
            "key_store": "token",
            "pairs": 5,
            "destruction_owed": 0,
        }
    ]
    with KeyDatabase.opened(interface.place) as database, database.begin() as connection:
        records = list(audit.read(connection, schema.audit))
    assert [each.event for each in records] == [*["imported"] * 5, "batch-received"]
    assert records[-1].facts["new"] == 5
    assert interface.spooled() == []


def answered(interface, batch):
    """Have the last pair of a batch ask for a Target that there is not; return the status."""
    key_id = key_id_of(batch.pairs[-1].public_key)
    with interface.session("alice") as session:
        key = OneTimeKeys(session).private_key(key_id)
        asked = make_request(target="elsewhere", request_id=key_id)
        body = seal_request(asked, batch.pairs[-1].public_key, P256, key)
    with socket.create_connection(("127.0.0.1", interface.requests), 60) as connection:
        connection.sendall(http(body))
        return status_of(read_all(connection))


def check_that_spent_ones_come_in_no_other_batch(interface, batch):
    """As the batch that brought them they may come again."""
    assert json.loads(post(interface, batch).body)["new"] == 0
    refused = post(interface, structs.replace(batch, batch_id=bytes(16)))
    assert (refused.status, b"(1 already spent)" in refused.body) == (422, True), refused.body


def test_paired_keys_get_onto_the_hsm_that_serves_meanwhile(interface):
    interface.start()
    first, second = interface.paired_batch(3), interface.paired_batch(4)
    assert json.loads(post(interface, first).body)["new"] == 3
    assert answered(interface, first) == 200
    assert json.loads(post(interface, second).body)["new"] == 4
    assert json.loads(post(interface, second).body)["new"] == 0
    assert answered(interface, second) == 200
    check_that_spent_ones_come_in_no_other_batch(interface, second)
    assert "hsm-lost" not in interface.said()
    with interface.session("hsm") as session:
        kept = {pair.key_id for pair in OneTimeKeys(session).pairs()}
    wanted = {key_id_of(pair.public_key) for pair in (*first.pairs, *second.pairs)}
    answered_and_burned = {key_id_of(each.pairs[-1].public_key) for each in (first, second)}
    assert wanted - answered_and_burned <= kept <= wanted


def burn(interface):
    return interface.provision(
        "burn", "--token", "alice", "--all", "--yes", "--lost", *interface.host,
        "--pin-file", interface.directory / "pin",
    )  # fmt: skip


def test_wrapped_keys_are_recorded_and_unwrapped_by_the_process_that_took_them(interface):
    text = interface.config.read_text()
    wrapped = text.replace('token = "hsm"', 'token = "hsm"\nkey_store = "wrapped"')
    interface.config.write_text(wrapped)
    interface.start()
    batch = interface.paired_batch(3)
    assert json.loads(post(interface, batch).body)["new"] == 3
    assert json.loads(post(interface, batch).body)["new"] == 0
    assert answered(interface, batch) == 200
    check_that_spent_ones_come_in_no_other_batch(interface, batch)
    with interface.session("hsm") as session:
        assert OneTimeKeys(session).pairs() == []
        assert BatchKeys(session).held() == {kek_id_of(batch)}
    with KeyDatabase.opened(interface.place) as database:
        assert [(each.pairs > 0, each.state) for each in database.batch_keys()] == [
            (True, "in use")
        ]


@sqlite_is_enough
def test_the_host_hears_of_a_burn_at_once_or_by_the_command_that_is_said(interface):
    interface.start()
    assert post(interface, interface.paired_batch(2)).status == 200
    done = burn(interface)
    assert "The Host was told, and made 2 of them invalid" in done.stdout, done.stderr
    assert interface.counts() == {"lost": 2}
    assert post(interface, interface.paired_batch(2)).status == 200
    interface.stop()
    done = burn(interface)
    assert (done.returncode, "2 key pairs on token alice are destroyed" in done.stdout) == (6, True)
    assert interface.counts() == {"lost": 2, "valid": 2}
    interface.start()
    name, *argv = shlex.split(done.stderr.partition("run later: ")[2])
    assert name == "carnet-provision"
    assert interface.provision(*argv).returncode == 0
    assert interface.counts() == {"lost": 4}
    # Pairs that it does not know.
    interface.paired_batch(1)
    assert "The Host was told, and made 0 of them invalid" in burn(interface).stdout
    # Pairs of which an import is under way.
    batch = interface.paired_batch(2)
    with KeyDatabase.opened(interface.place) as database:
        key_ids = [key_id_of(each.public_key) for each in batch.pairs]
        database.begin_import(batch.batch_id, batch.user_id, batch.token_serial, key_ids)
    assert "The Host was told, and made 2 of them invalid" in burn(interface).stdout
    assert post(interface, batch).status == 200
    assert interface.counts() == {"lost": 6}
    assert "revoked-while-imported" in interface.said()


@pytest.fixture
def card(tmp_path):
    """A fake PIV card with two keys to be adopted; return it, what reaches it, its options."""
    (tmp_path / "readers").mkdir()
    machine = Machine("readers", tmp_path / "readers")
    try:
        loopback(machine)
        readers = CardReaders(machine)
        readers.start()
        card = Card(machine, 0, "alice", 2)
        card.insert()
        (tmp_path / "card-pin").touch(mode=0o600)
        (tmp_path / "card-pin").write_text(DEFAULT_PIN)
        reaches = {"PCSCLITE_CSOCK_NAME": str(readers.socket)}
        yield card, reaches, ("--module", OPENSC, "--pin-file", tmp_path / "card-pin")
    finally:
        machine.close()


@sqlite_is_enough
def test_the_host_hears_of_a_burn_that_a_card_does_not_carry_out(interface, card):
    card, reaches, options = card
    host_keys, cover = interface.directory / "host-keys.pem", interface.directory / "cover"
    with interface.session("hsm") as session:
        host_keys.write_bytes(pem_of(make_host_keys(session)))
    adopt = ("adopt", "--user", "alice@office", "--count", "2", "--host-keys", host_keys,
             "--host-url", "http://host.example", "--target", "work",
             "--out", interface.directory / "batch", "--cover-out", cover)  # fmt: skip

    def adopting():
        for file in (interface.directory / "batch", cover):
            file.unlink(missing_ok=True)
        return interface.provision(*adopt, *options, **reaches)

    wait_until(lambda: adopting().returncode == 0, "the card in its reader")
    interface.start()
    sent = interface.provision("send", interface.directory / "batch", *interface.host)
    assert sent.returncode == 0, sent.stderr
    burn = ("burn", "--all", "--yes", "--cover", cover, *options)
    done = interface.provision(*burn, *interface.host, **reaches)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 key pairs stay on token alice, which destroys no keys" in done.stdout
    assert "The Host was told, and made 2 of them invalid" in done.stdout
    assert interface.counts() == {"revoked": 2}

    # Another adoption has its card pulled as it proves the first key.
    card.leave_at(SIGNS)
    done = adopting()
    assert done.returncode == 4
    assert "Token alice was pulled out, in the middle; nothing of it is adopted" in done.stderr
    assert not cover.exists()
