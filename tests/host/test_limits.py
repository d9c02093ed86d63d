"""Over a limit: 429 for everybody alike, before anything is looked up."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import OperationalError

from carnet.errors import UsageError
from host_agent import config
from host_agent.admission import Admission, Place
from host_agent.config import LimitsSection
from lab.waiting import wait_until
from tests.host.real_host import http, sealed, spoiled, status_of
from tests.host.test_strangers import ONE_ANSWER
from tests.unit.examples import SoftwareKey

PUT_OFF = (
    b"HTTP/1.1 429 Too Many Requests\r\n"
    b"Retry-After: 60\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
LONG = "1000 hour"
"""A window that does not end while a test runs."""


def limits(per_address=1000, hsm=1000):
    return LimitsSection(per_address=f"{per_address}/{LONG}", hsm=f"{hsm}/{LONG}")


@pytest.fixture
def pairs():
    return [SoftwareKey() for _ in range(8)]


def addresses():
    return (f"127.0.{n // 250}.{n % 250 + 1}" for n in itertools.count(256))


def kinds(pairs, answered):
    """Return a request of each kind of key_id, and the one that the Host has answered."""
    return {
        "unknown": sealed(SoftwareKey()),
        "known, bad seal": spoiled(sealed(pairs[1])),
        "known, good": sealed(pairs[2]),
        "spent, other bytes": sealed(pairs[0]),
        "spent, the same bytes": answered,
    }


def test_of_one_address_every_well_formed_request_counts(make_host, pairs):
    host = make_host(limits(per_address=3))
    host.add_pairs(*pairs)
    with host:
        first = [host.post(sealed(SoftwareKey())) for _ in range(2)]
        first.append(host.post(spoiled(sealed(pairs[1]))))
        assert first == [ONE_ANSWER] * 3
        looked_up, asked = len(host.database.calls), len(host.hsm.calls)
        for request in kinds(pairs, sealed(pairs[0])).values():
            assert host.post(request) == PUT_OFF
        assert len(host.database.calls) == looked_up
        assert len(host.hsm.calls) == asked
        assert status_of(host.post(sealed(pairs[3]), source="127.0.0.2")) == 200


def test_what_is_not_well_formed_is_never_put_off(make_host):
    with make_host(limits(per_address=1)) as host:
        assert host.post(sealed(SoftwareKey())) == ONE_ANSWER
        assert host.post(sealed(SoftwareKey())) == PUT_OFF
        assert host.post(b"nonsense") == ONE_ANSWER


def test_asking_for_ones_address_counts_like_a_request(make_host, pairs):
    address = http(b"", "GET /v1/address HTTP/1.1")
    host = make_host(limits(per_address=2, hsm=1))
    host.add_pairs(*pairs)
    with host:
        assert status_of(host.send(address)) == 200
        assert host.database.calls == host.hsm.calls == []
        assert host.post(sealed(SoftwareKey())) == ONE_ANSWER
        assert host.send(address) == host.post(sealed(pairs[0])) == PUT_OFF
        assert status_of(host.post(sealed(pairs[0]), "127.0.0.2")) == 200
        assert status_of(host.send(address, "127.0.0.2")) == 200


def test_when_the_token_has_enough_to_do_everybody_is_put_off_alike(make_host, pairs):
    host = make_host(limits(hsm=2))
    host.add_pairs(*pairs)
    with host:
        answered = sealed(pairs[0])
        assert status_of(host.post(answered)) == 200
        wait_until(lambda: "record_destroyed" in host.database.calls, "the burn after the answer")
        assert host.post(spoiled(sealed(pairs[1])), "127.0.0.2") == ONE_ANSWER
        looked_up, asked = len(host.database.calls), len(host.hsm.calls)
        for request, address in zip(kinds(pairs, answered).values(), addresses(), strict=False):
            assert host.post(request, address) == PUT_OFF
        assert len(host.database.calls) == looked_up
        assert len(host.hsm.calls) == asked


def test_only_what_reaches_the_token_uses_its_limit_up(make_host, pairs):
    host = make_host(limits(hsm=2))
    host.add_pairs(*pairs)
    with host:
        answered = sealed(pairs[0])
        assert status_of(host.post(answered)) == 200
        for _ in range(5):
            assert host.post(sealed(SoftwareKey())) == ONE_ANSWER
            assert host.post(sealed(pairs[0])) == ONE_ANSWER
            assert status_of(host.post(answered)) == 200
        assert status_of(host.post(sealed(pairs[2]))) == 200
        assert host.post(sealed(pairs[3])) == PUT_OFF


def test_many_at_once_do_not_pass_together(make_host, pairs):
    host = make_host(limits(hsm=3))
    host.add_pairs(*pairs)
    with host, ThreadPoolExecutor(len(pairs)) as threads:
        requests = [spoiled(sealed(pair)) for pair in pairs]
        answers = list(threads.map(host.post, requests))
        assert set(answers) <= {ONE_ANSWER, PUT_OFF}
        assert host.hsm.calls.count("open_request") == answers.count(ONE_ANSWER) <= 3


def test_a_place_is_given_back_whatever_happens(make_host, pairs, monkeypatch):
    host = make_host(limits(hsm=1))
    host.add_pairs(*pairs)
    with host:

        def fail(_):
            raise OperationalError("", {}, Exception("disk I/O error"))

        with monkeypatch.context() as patch:
            patch.setattr(host.database.part, "look_up", fail)
            assert status_of(host.post(sealed(pairs[0]))) == 503
        assert status_of(host.post(sealed(pairs[0]))) == 200
        assert host.admission.places == 0


def test_a_place_counts_once():
    admission = Admission(limits(hsm=2))
    first = admission.ask("192.0.2.1")
    assert isinstance(first, Place)
    first.use()
    first.use()
    first.give_back()
    second = admission.ask("192.0.2.1")
    assert isinstance(second, Place)
    assert admission.ask("192.0.2.1") == 60
    second.give_back()
    assert isinstance(admission.ask("192.0.2.1"), Place)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_an_address_of_ipv6_counts_for_its_network(one, other, same):
    admission = Admission(limits(per_address=1))
    assert isinstance(admission.ask(one), Place)
    assert isinstance(admission.ask(other), Place) is not same


def test_addresses_do_not_fill_the_memory():
    admission = Admission(limits())
    for number in range(20_000):
        place = admission.ask(f"2001:db8:{number >> 8:x}:{number & 255:x}::1")
        if isinstance(place, Place):
            place.give_back()
    assert len(admission._of_one.storage.storage) <= 2 * 4096


def configured(tmp_path, line):
    path = tmp_path / "host.toml"
    text = config.render("office", [("work", "https://198.51.100.2:8471")])
    path.write_text(text.replace("[limits]\n", f"[limits]\n{line}\n"))
    return config.load(path)


def test_limits_are_the_operators(tmp_path):
    assert configured(tmp_path, "").limits == LimitsSection()
    assert configured(tmp_path, 'hsm = "5/30 second"').limits.hsm == "5/30 second"


@pytest.mark.parametrize("text", ["0/second", "5", "5/fortnight", "5/second;9/minute", "-5/second"])
def test_a_limit_that_is_none_is_said_with_its_line(tmp_path, text):
    with pytest.raises(UsageError, match=r"host\.toml, line \d+: .*correct it"):
        configured(tmp_path, f'per_address = "{text}"')


def test_every_limit_that_can_be_written_can_be_read():
    for text in ("1/second", "999999/minute", "60/10 second", "7/9999 hour"):
        Admission(LimitsSection(per_address=text, hsm=text))
