"""`carnet connect` and cards in readers: plugged in late, and one of two."""

import json
from contextlib import contextmanager

import pytest

from lab.fake_piv import DEFAULT_PIN
from lab.office import pipes
from lab.readers import OPENSC, Card, CardReaders
from lab.waiting import wait_until
from lab.world import World
from tests.lab.offices import AtWork

ALICE, BOB = "00112233445566778899aabbccddeeff", "0011223344556677ffeeddccbbaa9988"
WRONG_PIN = "000000"


@pytest.fixture(scope="module")
def office(lane):
    """No agents needed: neither card has a cover, which is found out after the login."""
    with World() as world:
        made = AtWork(world, lane)
        made.client_charon.start()
        yield made


@pytest.fixture(scope="module")
def cards(office):
    client = office.world.client
    CardReaders(client).start()
    made = Card(client, 0, "alice"), Card(client, 1, "bob")
    for card, guid in zip(made, (ALICE, BOB), strict=True):
        card.become(guid)
    return made


@pytest.fixture(autouse=True)
def out_of_the_readers(cards):
    yield
    for card in cards:
        card.renew()


@pytest.fixture
def on_cards(office):
    return office.configure_client(f'module = "{OPENSC}"\n')


@contextmanager
def connecting(office, extra, *options):
    with pipes({"pin": DEFAULT_PIN}) as (given, fds):
        yield office.world.client.start(
            ["carnet", "connect", *options, *given],
            log=f"connect{'-'.join(options)}.log",
            pass_fds=fds,
            extra=extra,
        )


def labels(office, extra):
    done = office.carnet("tokens", "--json", extra=extra)
    assert done.returncode == 0, done.stderr
    return sorted(token["label"] for token in json.loads(done.stdout))


def test_a_card_that_is_inserted_late_is_logged_in_to(office, cards, on_cards):
    with connecting(office, on_cards, "--wait") as process:
        process.wait_for_line("Waiting for a token; plug it in")
        cards[0].insert()
        assert process.wait(60) == 4
    assert "The token has no cover" in process.output().splitlines()[-1]


def test_of_two_cards_the_named_one_alone_gets_the_pin(office, cards, on_cards):
    for card in cards:
        card.insert()
    wait_until(lambda: labels(office, on_cards) == ["alice", "bob"], "both cards", 40)
    done = office.carnet("connect", pin=WRONG_PIN, extra=on_cards)
    assert done.returncode == 4
    assert f"alice (serial {ALICE[16:]}), bob (serial {BOB[16:]})" in done.stderr
    assert [card.tries() for card in cards] == [3, 3]
    for selector, tries in (("bob", [3, 2]), (ALICE[16:], [2, 2])):
        done = office.carnet("connect", "--token", selector, pin=WRONG_PIN, extra=on_cards)
        assert (done.returncode, "The PIN is wrong" in done.stderr) == (4, True)
        assert [card.tries() for card in cards] == tries
