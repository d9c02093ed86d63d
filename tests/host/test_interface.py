"""The officer's interface of a Host that runs: who gets in, and what comes of it."""

import contextlib
import json
import socket
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import structs

from carnet.audit.chain import ChangedError
from carnet.database.place import FilePlace
from carnet.interface import BATCHES, REVOCATIONS, decode_revocation
from carnet.wire.documents import MAX_BATCH
from carnet.wire.keys import key_id_of
from host_agent import officer_interface
from host_agent.keydb import KeyDatabase, PairState
from lab.waiting import wait_until
from provisioning.authority import Role, officer_certificate
from provisioning.officer import create_officer
from tests.host.batches import public_key
from tests.host.conftest import postgres_place
from tests.host.interface import PASSPHRASE, host_with_interface


@pytest.fixture
def interface(tmp_path, place, monkeypatch):
    """A Host that does not serve yet."""
    with host_with_interface(tmp_path, place, monkeypatch) as made:
        yield made


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def served_place(request, tmp_path_factory):
    """Where the Host that serves has its Key Database."""
    if request.param == "sqlite":
        yield FilePlace(tmp_path_factory.mktemp("database") / "keys.sqlite")
        return
    server = request.getfixturevalue("postgresql")
    with server.database() as name:
        yield postgres_place(server, name)


@pytest.fixture(scope="module")
def served(tmp_path_factory, served_place):
    """A Host that serves, for all tests that leave it as it was."""
    directory, place = tmp_path_factory.mktemp("served"), served_place
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        host_with_interface(directory, place, monkeypatch) as made,
    ):
        made.start()
        yield made


@contextlib.contextmanager
def nothing_changed(interface):
    """Nothing is imported and nothing is left of what was sent."""
    before = interface.counts()
    yield
    wait_until(lambda: not interface.spooled(), "the spool file to be gone")
    assert interface.counts() == before


def signed(interface, batch):
    return interface.officer.sign(batch)


def post(interface, batch):
    return interface.ask("POST", BATCHES, signed(interface, batch))


def test_a_batch_for_another_hsm_is_refused(served):
    batch = structs.replace(served.paired_batch(1), host_transport_key=public_key())
    with nothing_changed(served):
        answer = post(served, batch)
    assert (answer.status, b"another Host's transport key" in answer.body) == (422, True)


NO = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def self_signed(interface, file, name, lifetime):
    key = ec.generate_private_key(ec.SECP256R1())
    return interface.write(file, officer_certificate(key, name, lifetime), key)


def expired(interface):
    """The officer's own key, with a certificate that is over."""
    short = timedelta(minutes=-4)  # a certificate begins five minutes before it is made
    certificate = officer_certificate(interface.officer.key, "officer", short)
    return interface.write("expired", certificate, interface.officer.key)


def issued(interface, role, file, name, officer=None):
    return interface.certify(role, file, name, officer)


STRANGERS = {
    "none": lambda _: (),
    "another officer": lambda i: self_signed(i, "another", "officer", timedelta(days=9)),
    "a Target's": lambda i: issued(i, Role.TARGET, "work", "work"),
    "a Host's": lambda i: issued(i, Role.HOST, "office-again", "office"),
    "a Host's interface": lambda i: issued(i, Role.INTERFACE, "interface-again", "office"),
    "the officer's, over": expired,
}


def test_nobody_but_the_officer_is_let_in(served):
    """Either TLS ends it, or, for who is certified by her, the one answer."""
    heard = {who: served.heard_by(of(served)) for who, of in STRANGERS.items()}
    assert heard.pop("a Host's") == NO
    assert set(heard.values()) == {b""}
    assert served.heard_by(served.own).startswith(b"HTTP/1.1 200")


def test_the_officer_is_not_let_in_with_a_certificate_that_is_over(interface):
    certificate, key = expired(interface)
    (interface.directory / "officer" / "officer.crt").write_bytes(certificate.read_bytes())
    interface.start()
    assert interface.heard_by((certificate, key)) == b""


def test_the_officer_is_told_where_nothing_can_be_accounted_for():
    error = ChangedError("None can follow.")
    assert isinstance(error, officer_interface._FAILURES)
    assert officer_interface._explain(error) == (503, "None can follow.")


def test_a_host_that_is_another_gets_nothing(served, tmp_path):
    """Another's name, or a certificate for the link, is not the interface of this Host."""
    path = tmp_path / "batch"
    path.write_bytes(signed(served, served.split_batch(2)))
    with nothing_changed(served):
        done = served.provision("send", path, "--host", "elsewhere", served.url)
    assert done.returncode == 6
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_batch_that_a_stranger_signed_is_refused_whoever_sends_it(served, tmp_path):
    other = create_officer(tmp_path / "other", PASSPHRASE, "other", timedelta(days=9))
    path = tmp_path / "batch"
    path.write_bytes(other.sign(served.split_batch(2)))
    with nothing_changed(served):
        done = served.provision("send", path, *served.host)
    assert done.returncode == 3
    assert "signature does not hold" in done.stderr


def test_an_upload_that_is_cut_leaves_nothing(served):
    body = signed(served, served.split_batch(200))
    head = f"POST {BATCHES} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    with nothing_changed(served), served.connect() as connection:
        connection.sendall(head.encode() + body[: len(body) // 2])
        wait_until(served.spooled, "the first bytes to be spooled")
        connection.close()
    # Nobody is kept out by it.
    assert post(served, served.split_batch(2)).status == 200


@pytest.mark.parametrize(
    "framing", [f"Content-Length: {MAX_BATCH * 2}", "Transfer-Encoding: chunked"]
)
def test_an_upload_that_is_too_long_is_refused(served, framing):
    """By what it announces, or, where it announces nothing, as soon as it is too long."""
    with nothing_changed(served), served.connect() as connection:
        head = f"POST {BATCHES} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"
        connection.sendall(head.encode())
        chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
        try:
            while framing.startswith("Transfer"):
                connection.sendall(chunk)
        except OSError:
            pass
        connection.settimeout(60)
        with contextlib.suppress(OSError):
            assert connection.recv(100).startswith(b"HTTP/1.1 413")
        connection.close()


def test_of_two_uploads_at_once_one_is_put_off(served):
    user = "twice@office"
    first, second = (signed(served, served.split_batch(50, user_id=user)) for _ in range(2))
    head = f"POST {BATCHES} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(first)}\r\n\r\n"
    with served.connect() as connection:
        connection.sendall(head.encode() + first[:100])
        wait_until(served.spooled, "the first bytes to be spooled")
        answer = served.ask("POST", BATCHES, second)
        assert answer.status == 409
        assert b"Another import runs" in answer.body
        connection.sendall(first[100:])
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert served.ask("POST", BATCHES, second).status == 200
    assert served.counts(user) == {"valid": 100}


SMALL_DISK = (
    *("unshare", "--mount", "sh", "-c"),
    'mount -t tmpfs -o size=16k,mode=700 none "$0" && exec "$@"',
)
"""Has a command see a disk of 16 KiB at a path; it is gone with the command."""


def test_a_batch_for_which_the_disk_has_no_room_can_be_sent_again(interface, tmp_path):
    state = interface.directory / "state"
    state.mkdir(mode=0o700)
    interface.start(*SMALL_DISK, state)
    path = tmp_path / "batch"
    path.write_bytes(signed(interface, interface.split_batch(200)))
    done = interface.provision("send", path, *interface.host)
    assert done.returncode == 6
    assert "No space left on device" in done.stderr
    assert "see to the disk of its directory, then send it again" in done.stderr
    assert interface.ask("POST", BATCHES, path.read_bytes()).status == 507
    assert interface.counts() == {}
    assert post(interface, interface.split_batch(2)).status == 200


def test_pairs_are_revoked_by_key_user_and_token(served):
    for user, serial in (("al", "11"), ("bob", "12"), ("carol", "13")):
        batch = served.split_batch(3, user_id=f"{user}@office", token_serial=serial)
        assert post(served, batch).status == 200
        key = key_id_of(batch.pairs[0].public_key).hex()

    def revoke(*which):
        done = served.provision("revoke", *which, *served.host, "--reason", "stolen", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["revoked"]

    assert revoke("--key", key, "--lost") == 1
    assert revoke("--key", key) == 0
    assert revoke("--user", "al@office") == 3
    assert revoke("--token-serial", "12") == 3
    assert [served.counts(f"{user}@office") for user in ("al", "bob", "carol")] == [
        {"revoked": 3},
        {"revoked": 3},
        {"valid": 2, "lost": 1},
    ]
    with KeyDatabase.opened(served.place) as database:
        assert database.find_pair(bytes.fromhex(key)).state is PairState.INVALID


def test_what_is_not_known_is_not_said_to_be_revoked(served):
    batch = served.split_batch(2, token_serial="14")
    twice = structs.replace(batch, batch_id=bytes(16), pairs=batch.pairs[:1] * 2)
    assert post(served, batch).status == 200
    assert b"the same key pair twice" in post(served, twice).body
    which = (*served.host, "--reason", "stolen", "--token-serial")
    assert "2 key pairs revoked" in served.provision("revoke", *which, "14").stdout
    done = served.provision("revoke", *which, "14")
    assert (done.returncode, done.stdout[:21]) == (0, "Nothing is left to do")
    done = served.provision("revoke", *which, "15")
    assert (done.returncode, done.stdout) == (2, "")
    assert "delete that file, or revoke it again after the import" in done.stderr


def test_a_batch_that_is_here_is_revoked_before_its_pairs_are_looked_at(served):
    user = "taxi@office"
    body = signed(served, served.split_batch(1000, user_id=user))
    head = f"POST {BATCHES} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    with served.connect() as connection:
        connection.sendall(head.encode() + body)
        wait_until(lambda: served.spooled() == [len(body)], "the batch to be there")
        asked = json.dumps({"user_id": user, "why": "left in a taxi", "lost": True})
        told = json.loads(served.ask("POST", REVOCATIONS, asked).body)
        assert told["importing"] + told["revoked"] == 1000
        connection.recv(100)
    assert served.counts(user) == {"lost": 1000}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"why": "lost"}',
        b'{"why": "", "user_id": "alice@office"}',
        b'{"why": "lost", "user_id": "alice@office", "token_serial": "1"}',
        b'{"why": "lost", "user_id": "alice"}',
        b'{"why": "lost", "key_ids": ["00"]}',
        b'{"why": "lost", "user_id": "alice@office", "more": 1}',
    ],
)
def test_what_is_no_revocation_revokes_nothing(body):
    with pytest.raises(ValueError, match=r"."):
        decode_revocation(body)


def test_other_paths_and_long_revocations_are_refused(served):
    assert served.ask("GET", BATCHES).status == 404
    assert served.ask("POST", "/v1/requests", b"").status == 404
    assert served.ask("POST", REVOCATIONS, b"{}").status == 400
    assert served.ask("POST", REVOCATIONS, bytes(600_000)).status == 413


def test_without_the_section_nothing_listens(interface):
    text = interface.config.read_text()
    before, _, rest = text.partition("[interface]")
    interface.config.write_text(before + rest[rest.index("[targets") :])
    interface.start()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", interface.port))
