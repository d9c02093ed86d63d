"""Exactly once, with everybody at the door at the same time."""

from carnet import audit
from carnet.audit.chain import follow
from carnet.wire.keys import key_id_of
from host_agent import schema
from host_agent.keydb import KeyDatabase
from lab.waiting import wait_until
from tests.fleet.conftest import how_many
from tests.fleet.traveller import insist, open_grant, seal, send_all

PROCESSES = 4


def urls_of(processes):
    return [process.url for process in processes]


def to_each_in_turn(urls):
    def send(session, number, body):
        turn = number % len(urls)
        return insist(session, urls[turn:] + urls[:turn], body)

    return send


def accounts(place):
    """The events of the Host's accounts, which must be whole."""
    with KeyDatabase.opened(place) as database, database.begin() as connection:
        assert all(link.holds for link in follow(connection, schema.audit))
        return [record.event for record in audit.read(connection, schema.audit)]


def nothing_owed(place):
    with KeyDatabase.opened(place) as database:
        return not database.keys_to_destroy() and not database.unanswered()


def test_one_pair_submitted_many_times_makes_one_session_key(fleet, keys):
    (key,) = keys(1)
    urls = urls_of(fleet.start(PROCESSES))
    requests = [seal(key) for _ in range(how_many(10_000, 250))]
    replies = send_all(requests, to_each_in_turn(urls))
    served = [n for n, reply in enumerate(replies) if reply.status == 200]
    assert len(served) == 1
    assert {reply.status for reply in replies} == {200, 403}
    grant = open_grant(key, requests[served[0]], replies[served[0]])
    assert fleet.gateway.session_keys == {grant.request_id: grant.session_key}
    assert len(fleet.gateway.driver.installs) == 1
    assert accounts(fleet.place).count("spent") == 1


def test_many_pairs_at_once_are_all_served_and_none_twice(fleet, keys):
    pairs = keys(how_many(1000, 60))
    urls = urls_of(fleet.start(PROCESSES))
    requests = [seal(key) for key in pairs]
    replies = send_all(requests, to_each_in_turn(urls))
    assert {reply.status for reply in replies} == {200}
    grants = [open_grant(*each) for each in zip(pairs, requests, replies, strict=True)]
    made = fleet.gateway.session_keys
    assert made == {grant.request_id: grant.session_key for grant in grants}
    assert len(made) == len(set(made.values())) == len(pairs)
    assert len(fleet.gateway.driver.installs) == len(pairs)
    wait_until(lambda: nothing_owed(fleet.place), "every private key to be destroyed", 120)
    assert not fleet.token.held() & {key_id_of(key.public_key) for key in pairs}
    events = accounts(fleet.place)
    for event in ("imported", "spent", "answered", "key-destroyed"):
        assert events.count(event) == len(pairs)


def test_the_same_bytes_at_every_process_get_the_same_answer(fleet, keys):
    (key,) = keys(1)
    urls = urls_of(fleet.start(PROCESSES))
    request = seal(key)
    replies = send_all([request] * 40, to_each_in_turn(urls))
    assert {(reply.status, reply.body) for reply in replies} == {(200, replies[0].body)}
    assert len(fleet.gateway.driver.installs) == 1
    assert accounts(fleet.place).count("answered") == 1
