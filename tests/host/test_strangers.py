"""What strangers get: one answer, the same bytes, and nothing of the token.

Every byte counts here, from the status line to the end of the connection.
"""

import gzip
import tempfile
import time
from pathlib import Path

import pytest

from carnet.wire.cbor import MAX_MESSAGE
from carnet.wire.envelope import parse_envelope
from carnet.wire.fault import WireError
from carnet.wire.keys import key_id_of
from carnet.wire.suites import RSA, RSA_SHA1
from host_agent import door
from host_agent.keydb import PairState
from lab.waiting import wait_until
from tests.host.real_host import RealHost, http, new_module, read_all, sealed, spoiled, status_of
from tests.unit.examples import SoftwareKey
from tests.unit.test_vectors import FILES, key_of, read

ONE_ANSWER = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

BAD = {
    path.stem: vector
    for path in FILES
    if path.parent.name == "bad" and (vector := read(path))["operation"] == "open request"
}


class Pairs:
    """One pair for each fate."""

    def __init__(self):
        for name in ("valid", "victim", "spent", "revoked", "expired", "slow"):
            setattr(self, name, SoftwareKey())

    def all(self):
        return vars(self).values()


@pytest.fixture(scope="module")
def pairs():
    return Pairs()


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def host(pairs, monkeypatch_module):
    """A Host that also has the private keys of all bad vectors: each pair is known and valid."""
    with tempfile.TemporaryDirectory(prefix="carnet-host-") as name:
        directory = Path(name)
        host = RealHost(directory, new_module(directory, monkeypatch_module))
        for private in {vector["inputs"]["private_key"] for vector in BAD.values()}:
            pair = key_of({"private_key": private})
            # SoftHSM2 has OAEP with SHA-1 only, so that is what a Host with it imports.
            host.add_pairs(pair, suite=(RSA_SHA1 if pair.suite is RSA else pair.suite).number)
        host.add_pairs(pairs.valid, pairs.victim, pairs.spent, pairs.revoked, pairs.slow)
        host.add_pairs(pairs.expired, not_after=int(time.time()) - 1)
        with host:
            host.database.revoke("lost", key_id=key_id_of(pairs.revoked.public_key))
            host.request_that_spent = sealed(pairs.spent)
            host.answer = host.post(host.request_that_spent)
            await_burns(host, 1)
            yield host


def await_burns(host, count):
    """Wait for what comes after so many answers, that it is not taken for what a stranger got."""
    burns = "record_destroyed"
    wait_until(lambda: host.database.calls.count(burns) == count, "the burn after the answer")


def needs_the_token(host, message):
    """Whether what is wrong with a message cannot be seen from outside."""
    try:
        envelope = parse_envelope(message)
    except WireError:
        return False
    pair = host.database.find_pair(envelope.key_id)
    return pair is not None and pair.suite == envelope.suite.number


@pytest.fixture
def token_calls(host):
    """What was asked of the token since the test began."""
    before = len(host.hsm.calls)
    return lambda: host.hsm.calls[before:]


def test_a_real_client_gets_through_here(host, pairs, token_calls):
    """The strangers below fail for what they do wrong, not because nobody succeeds."""
    response = host.post(sealed(pairs.valid))
    assert status_of(response) == 200
    await_burns(host, 2)
    assert token_calls() == ["open_request", "seal_response", "destroy"]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_message_gets_the_one_answer(host, name, token_calls):
    message = BAD[name]["inputs"]["message"]
    assert host.post(message) == ONE_ANSWER
    assert token_calls() == (["open_request"] if needs_the_token(host, message) else [])


def test_there_are_enough_bad_messages_of_both_kinds(host):
    needed = [needs_the_token(host, vector["inputs"]["message"]) for vector in BAD.values()]
    assert needed.count(True) > 40
    assert needed.count(False) > 40


def refused_without_the_token(pairs, spent):
    some = sealed(SoftwareKey())
    return {
        "an unknown key": some,
        "a spent pair, other bytes": sealed(pairs.spent),
        "a spent pair, one bit of the same bytes": spoiled(spent),
        "a revoked pair": sealed(pairs.revoked),
        "an expired pair": sealed(pairs.expired),
        "nothing": b"",
        "no CBOR": b"\xff" * 100,
        "too much": some + bytes(MAX_MESSAGE),
        "far too much": bytes(1024 * 1024),
        "trailing bytes": some + b"\0",
        "cut short": some[:-1],
        "nested": b"\x81" * 8000 + b"\x00",
        "an array said to be endless": b"\x9f" * 100,
        "an array said to be huge": b"\x9b" + b"\xff" * 8,
        "a string said to be huge": b"\x5b\x7f" + b"\xff" * 7,
    }


CASES = list(refused_without_the_token(Pairs(), sealed(SoftwareKey())))


@pytest.mark.parametrize("what", CASES)
def test_what_needs_no_token_gets_none(host, pairs, token_calls, what):
    body = refused_without_the_token(pairs, host.request_that_spent)[what]
    assert host.post(body) == ONE_ANSWER
    assert token_calls() == []


def test_a_bad_seal_costs_one_operation_and_looks_the_same(host, pairs, token_calls):
    assert host.post(spoiled(sealed(pairs.victim))) == ONE_ANSWER
    assert token_calls() == ["open_request"]
    assert host.database.find_pair(key_id_of(pairs.victim.public_key)).state is PairState.VALID


def test_a_stored_answer_needs_no_token(host, token_calls):
    again = host.post(host.request_that_spent)
    assert again.partition(b"\r\n\r\n")[2] == host.answer.partition(b"\r\n\r\n")[2]
    assert token_calls() == []


CHUNKED = "Transfer-Encoding: chunked"
NO_LENGTH = b"Content-Length: 0\r\n"


def in_one_chunk(body):
    head = http(headers=[CHUNKED]).replace(NO_LENGTH, b"")
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def unusual(body):
    """HTTP that is served: it is the sealed message that decides."""
    return {
        "another content type": http(body).replace(b"application/cbor", b"text/html"),
        "chunked": in_one_chunk(body),
        "a host that is none": http(body).replace(b"host.example", b"[:::]:99999999"),
        "HTTP/1.0": http(body, "POST /v1/requests HTTP/1.0"),
        "HTTP/1.0, kept open": http(body, "POST /v1/requests HTTP/1.0", ["Connection: keep-alive"]),
        "kept open": http(body, headers=["Connection: keep-alive"]),
        "two at once": http(body) + http(body),
        "a whole URL": http(body, "POST http://elsewhere/v1/requests HTTP/1.1"),
        "a path with a query": http(body, "POST /v1/requests?a=b HTTP/1.1"),
        "an upgrade": http(body, headers=["Connection: upgrade", "Upgrade: websocket"]),
    }


def strange(body):
    """HTTP that is refused, whatever it brings."""
    return {
        "another path": http(body, "POST /elsewhere HTTP/1.1"),
        "no path": http(body, "POST / HTTP/1.1"),
        "the path spelt otherwise": http(body, "POST /v1/reque%73ts HTTP/1.1"),
        "GET": http(b"", "GET /v1/requests HTTP/1.1"),
        "HEAD": http(b"", "HEAD /v1/requests HTTP/1.1"),
        "OPTIONS": http(b"", "OPTIONS * HTTP/1.1"),
        "PUT": http(body, "PUT /v1/requests HTTP/1.1"),
        "DELETE": http(b"", "DELETE /v1/requests HTTP/1.1"),
        "TRACE": http(b"", "TRACE /v1/requests HTTP/1.1"),
        "CONNECT": http(b"", "CONNECT elsewhere:443 HTTP/1.1"),
        "the address, by POST": http(body, "POST /v1/address HTTP/1.1"),
        "the address, by HEAD": http(b"", "HEAD /v1/address HTTP/1.1"),
        "the address, with a body": http(body, "GET /v1/address HTTP/1.1"),
        "the address, with a query": http(b"", "GET /v1/address?a=b HTTP/1.1"),
        "the address, of a whole URL": http(b"", "GET http://a/v1/address HTTP/1.1"),
        "the address, spelt otherwise": http(b"", "GET /v1/addres%73 HTTP/1.1"),
        "the address, and expects": http(b"", "GET /v1/address HTTP/1.1", ["Expect: 100-continue"]),
        "a method that is none": http(body, "WISH /v1/requests HTTP/1.1"),
        "expects to be told to go on": http(body, headers=["Expect: 100-continue"]),
        "expects something else": http(body, headers=["Expect: the unexpected"]),
        "expects, elsewhere": http(body, "POST /else HTTP/1.1", ["Expect: 100-continue"]),
        "chunks that are none": http(headers=[CHUNKED]).replace(NO_LENGTH, b"") + b"zz\r\nabc\r\n",
        "two lengths": http(body, headers=["Content-Length: 5"]),
        "a length that is none": http(b"").replace(b"Content-Length: 0", b"Content-Length: -1"),
        "both length and chunks": http(b"", headers=[CHUNKED]),
        "a request line that is none": b"nonsense\r\n\r\n",
        "a request line without end": b"POST /" + b"a" * 9000,
        "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(200),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/3.7": http(body, "POST /v1/requests HTTP/3.7"),
        "a header that is none": http(body, headers=["nonsense"]),
        "a header with a NUL": http(body, headers=["X-A: a\0b"]),
        "a header that is too long": http(body, headers=["X-A: " + "a" * 9000]),
        "too many headers": http(body, headers=[f"X-{n}: a" for n in range(200)]),
        "a URL with a port that is none": http(body, "POST http://a:99999999/ HTTP/1.1"),
        "a URL that is none": http(body, "POST http://[/ HTTP/1.1"),
        "bytes that are no text": http(body, "POST /\xff\xfe HTTP/1.1"),
        "compressed": http(gzip.compress(body), headers=["Content-Encoding: gzip"]),
    }


THE_ADDRESS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n"
    b"Connection: close\r\n\r\n127.0.0.7"
)


def test_whoever_asks_is_told_the_address_he_is_seen_at_and_nothing_else(host):
    asked = http(b"", "GET /v1/address HTTP/1.1")
    assert host.send(asked, "127.0.0.7") == THE_ADDRESS
    kept = http(b"", "GET /v1/address HTTP/1.0", ["Connection: keep-alive"])
    assert host.send(kept + asked, "127.0.0.7") == THE_ADDRESS


UNKNOWN = sealed(SoftwareKey())


@pytest.mark.parametrize("what", unusual(UNKNOWN))
def test_unusual_http_gets_the_one_answer_as_any_other(host, token_calls, what):
    assert host.send(unusual(UNKNOWN)[what]) == ONE_ANSWER
    assert token_calls() == []


@pytest.mark.parametrize("what", strange(UNKNOWN))
def test_strange_http_gets_the_one_answer_even_with_a_request_that_is_good(
    host, pairs, token_calls, what
):
    assert host.send(strange(sealed(pairs.victim))[what]) == ONE_ANSWER
    assert token_calls() == []


def test_a_body_that_does_not_come_gets_the_one_answer(host, monkeypatch, token_calls):
    monkeypatch.setattr(door, "BODY_SECONDS", 0.05)
    with host.connect() as connection:
        connection.sendall(http(UNKNOWN)[:-1])
        assert read_all(connection) == ONE_ANSWER
    assert token_calls() == []


def test_somebody_who_hangs_up_within_his_request_leaves_nothing(host, token_calls):
    with host.connect() as connection:
        connection.sendall(http(UNKNOWN)[:-1])
    assert host.post(UNKNOWN) == ONE_ANSWER
    assert token_calls() == []
