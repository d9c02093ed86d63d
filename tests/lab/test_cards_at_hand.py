"""`carnet connect` and cards in readers: plugged in late, and one of two."""

import json
from contextlib import contextmanager

import pytest

from lab.fake_piv import DEFAULT_PIN
from lab.office import pipes
from lab.readers import OPENSC, Card, CardReaders
from lab.waiting import wait_until
from lab.world import World
from tests.lab.offices import AtWork, is_one_sentence
from tests.unit.examples import SoftwareKey
from tests.unit.test_cover_file import batch, cover, packed

ALICE, BOB = "00112233445566778899aabbccddeeff", "0011223344556677ffeeddccbbaa9988"
WRONG_PIN = "000000"


@pytest.fixture(scope="module")
def office(lane):
    """No agents needed: the cards' covers are files of whom no card names as its officer."""
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


@pytest.fixture(scope="module")
def covers(office):
    """The options that name the cover of each card."""
    officer, named = SoftwareKey(), []
    for guid in (ALICE, BOB):
        path = office.world.client.directory / f"{guid}.cover"
        path.write_bytes(packed(officer, cover(token_serial=guid[16:]), batch(SoftwareKey())))
        named.append(("--cover", str(path)))
    return named


@contextmanager
def connecting(office, extra, *options):
    with pipes({"pin": DEFAULT_PIN}) as (given, fds):
        yield office.world.client.start(
            ["carnet", "connect", *options, *given],
            log="connect.log",
            pass_fds=fds,
            extra=extra,
        )


def labels(office, extra):
    done = office.carnet("tokens", "--json", extra=extra)
    assert done.returncode == 0, done.stderr
    return sorted(token["label"] for token in json.loads(done.stdout))


def test_a_card_that_is_inserted_late_is_logged_in_to(office, cards, covers, on_cards):
    with connecting(office, on_cards, "--wait", *covers[0]) as process:
        process.wait_for_line("Waiting for a token; plug it in")
        cards[0].insert()
        assert process.wait(60) == 2
    assert "The token does not say who its security officer is" in process.output().splitlines()[-1]


def test_of_two_cards_the_named_one_alone_gets_the_pin(office, cards, covers, on_cards):
    for card in cards:
        card.insert()
    wait_until(lambda: labels(office, on_cards) == ["alice", "bob"], "both cards", 40)
    done = office.carnet("connect", pin=WRONG_PIN, extra=on_cards)
    assert done.returncode == 4
    assert f"alice (serial {ALICE[16:]}), bob (serial {BOB[16:]})" in done.stderr
    assert [card.tries() for card in cards] == [3, 3]
    for selector, named, tries in (
        ("bob", covers[1], [3, 2]),
        (ALICE[16:], covers[0], [2, 2]),
    ):
        options = ("--token", selector, *named)
        done = office.carnet("connect", *options, pin=WRONG_PIN, extra=on_cards)
        assert (done.returncode, "The PIN is wrong" in done.stderr) == (4, True)
        assert [card.tries() for card in cards] == tries


def test_no_pin_is_tried_on_a_card_without_cover_or_with_anothers(office, cards, covers, on_cards):
    cards[1].insert()
    wait_until(lambda: labels(office, on_cards) == ["bob"], "the card", 40)
    for named, said in (
        ((), f"Token bob (serial {BOB[16:]}) has no cover"),
        (covers[0], f"is the cover of token {ALICE[16:]}, not of bob (serial {BOB[16:]})"),
    ):
        done = office.carnet("connect", *named, pin=WRONG_PIN, extra=on_cards)
        assert (done.returncode, said in done.stderr, is_one_sentence(done)) == (4, True, True)
    assert cards[1].tries() == 3
