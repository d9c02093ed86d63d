"""Whether a token is there: by its reader and OpenSC, and on SoftHSM2, which has no reader."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from smartcard import scard

from carnet.errors import TokenAwayError, TokenError
from carnet.pin import Credential, PinSource
from carnet.token import presence, readers
from carnet.token.finding import find_module
from carnet.token.identity import Identity
from carnet.token.module import Module, Token
from carnet.token.presence import Glance, Lookout, Presence
from carnet.token.readers import Reader, look_at_readers
from host_agent.config import TokenSection
from host_agent.hsm_login import HsmLogin, find_hsm
from lab.fake_piv import DEFAULT_PIN
from lab.readers import OPENSC, READERS, Card, CardReaders
from lab.waiting import wait_until
from softhsm.configuration import CONFIGURATION_VARIABLE
from softhsm.places import cannot_have
from tests.unit.examples import SoftwareKey
from tests.unit.test_cover_file import batch, cover, packed
from tests.unit.test_watch import SESSION
from token_client import watch
from token_client.config import ClientConfig
from token_client.plugging import Plug

FIRST = "00112233445566770011223344556677"
OTHER = "8899aabbccddeeff8899aabbccddeeff"


def known(guid: str) -> Identity:
    """What a PIV card is known by: to OpenSC the last eight bytes of its GUID are its number."""
    return Identity(guid[-16:], {FIRST: "alice", OTHER: "bob"}[guid])


def insert(card: Card, number: int = 0) -> None:
    card.insert()
    wait_until(lambda: occupied(number), "the card in its reader")


def remove(card: Card, number: int = 0) -> None:
    card.remove()
    wait_until(lambda: not occupied(number), "the empty reader")


def occupied(number: int) -> bool:
    return any(r.name == READERS[number] and r.occupied for r in look_at_readers() or ())


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every time that the module is asked for its tokens."""
    times: list[str] = []
    real = Module.present

    def present(self, *, restart=True):
        times.append("restarted" if restart else "listed")
        return real(self, restart=restart)

    monkeypatch.setattr(Module, "present", present)
    return times


def test_a_card_pulled_and_plugged_in_again(
    opensc: Module, cards: tuple[Card, Card], asked: list[str]
) -> None:
    cards[0].become(FIRST)
    insert(cards[0])
    lookout = Lookout(Path(OPENSC), known(FIRST))
    assert lookout.look() is Presence.HERE
    remove(cards[0])
    assert lookout.look() is Presence.GONE
    insert(cards[0])
    assert lookout.look() is Presence.HERE
    assert "restarted" not in asked


def test_a_card_that_could_not_be_read_as_it_came_is_looked_at_again(
    opensc: Module, cards: tuple[Card, Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    cards[0].become(FIRST)
    lookout = Lookout(Path(OPENSC), known(FIRST))
    assert lookout.look() is Presence.GONE
    insert(cards[0])
    with monkeypatch.context() as unreadable:
        unreadable.setattr(Module, "present", lambda *_, **__: [])
        assert lookout.look() is Presence.GONE
    assert lookout.look() is Presence.HERE


def test_another_card_is_not_looked_at_for_ever(
    opensc: Module, cards: tuple[Card, Card], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "_DOUBTS", 2)
    cards[0].become(OTHER)
    insert(cards[0])
    lookout = Lookout(Path(OPENSC), known(FIRST))
    assert [lookout.look() for _ in range(4)] == [Presence.GONE] * 4
    asked.clear()
    assert lookout.look() is Presence.GONE
    assert asked == []


def test_a_card_at_rest_is_left_alone(
    opensc: Module, cards: tuple[Card, Card], asked: list[str]
) -> None:
    cards[0].become(FIRST)
    insert(cards[0])
    lookout = Lookout(Path(OPENSC), known(FIRST))
    lookout.look()
    asked.clear()
    cards[0].seen()
    assert [lookout.look() for _ in range(5)] == [Presence.HERE] * 5
    assert (asked, cards[0].seen()) == ([], [])


def test_another_card_in_the_same_reader_is_not_the_token(
    opensc: Module, cards: tuple[Card, Card]
) -> None:
    cards[0].become(FIRST)
    insert(cards[0])
    lookout = Lookout(Path(OPENSC), known(FIRST))
    assert lookout.look() is Presence.HERE
    remove(cards[0])
    cards[0].become(OTHER)
    insert(cards[0])
    assert lookout.look() is Presence.GONE


def test_the_other_reader_does_not_matter(opensc: Module, cards: tuple[Card, Card]) -> None:
    cards[0].become(FIRST)
    cards[1].become(OTHER)
    insert(cards[0])
    insert(cards[1], 1)
    lookout = Lookout(Path(OPENSC), known(OTHER))
    assert lookout.look() is Presence.HERE
    remove(cards[0])
    assert lookout.look() is Presence.HERE
    remove(cards[1], 1)
    assert lookout.look() is Presence.GONE


@pytest.mark.parametrize("count", [14, 26])
def test_a_card_pulled_while_it_is_read_keeps_nobody_waiting(
    pcscd: CardReaders, cards: tuple[Card, Card], count: int
) -> None:
    """In a program of its own, which can be ended if its module waits for ever."""
    insert(cards[0])
    cards[0].leave_after(count)
    environment = {
        "PATH": os.environ["PATH"],
        "PCSCLITE_CSOCK_NAME": str(pcscd.socket),
        "CARNET_PKCS11_MODULE": OPENSC,
    }
    listing = [sys.executable, "-m", "token_client", "tokens", "--json"]
    done = subprocess.run(listing, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(json.loads(done.stdout)) <= 1


def test_without_pcscd_nobody_can_see(
    opensc: Module, pcscd: CardReaders, cards: tuple[Card, Card]
) -> None:
    cards[0].become(FIRST)
    insert(cards[0])
    lookout = Lookout(Path(OPENSC), known(FIRST))
    assert lookout.look() is Presence.HERE
    pcscd.stop()
    assert lookout.look() is Presence.UNSEEN
    pcscd.start()
    assert [lookout.look() for _ in range(2)] == [Presence.UNSEEN] * 2  # as in the first moment
    insert(cards[0])
    assert lookout.look() is Presence.HERE
    remove(cards[0])
    assert lookout.look() is Presence.GONE


def swap(pcscd: CardReaders, card: Card) -> None:
    """Restart pcscd, and have another card in the reader, which reports it as it did the first."""
    pcscd.stop()
    card.become(OTHER)
    pcscd.start()
    insert(card)


@pytest.mark.parametrize("looked", [False, True])
def test_another_card_that_comes_with_another_pcscd_is_not_the_token(
    opensc: Module, pcscd: CardReaders, cards: tuple[Card, Card], looked: bool
) -> None:
    cards[0].become(FIRST)
    insert(cards[0])
    lookout = Lookout(Path(OPENSC), known(FIRST))
    assert lookout.look() is Presence.HERE
    if looked:
        pcscd.stop()
        assert lookout.look() is Presence.UNSEEN
    swap(pcscd, cards[0])
    assert lookout.look() is Presence.GONE
    remove(cards[0])
    assert lookout.look() is Presence.GONE
    cards[0].become(FIRST)
    insert(cards[0])
    assert lookout.look() is Presence.HERE


def test_a_pcscd_that_came_unseen_is_given_the_time_to_see_the_card(
    opensc: Module, pcscd: CardReaders, cards: tuple[Card, Card]
) -> None:
    cards[0].become(FIRST)
    insert(cards[0])
    lookout = Lookout(Path(OPENSC), known(FIRST))
    assert lookout.look() is Presence.HERE
    pcscd.stop()
    pcscd.start()
    assert lookout.look() is Presence.UNSEEN
    insert(cards[0])
    assert lookout.look() is Presence.HERE


@pytest.mark.parametrize("typing", [False, True], ids=["before its PIN is asked for", "meanwhile"])
def test_no_pin_is_given_to_another_card_that_comes_with_another_pcscd(
    opensc: Module,
    pcscd: CardReaders,
    cards: tuple[Card, Card],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    typing: bool,
) -> None:
    cards[0].become(FIRST)
    insert(cards[0])
    file = tmp_path / "cover"
    claimed = cover(token_serial=known(FIRST).serial)
    file.write_bytes(packed(SoftwareKey(), claimed, batch(SoftwareKey())))
    config = ClientConfig(module=OPENSC, cover=file)
    gone: list[Identity] = []
    monkeypatch.setattr(readers, "_contact", readers._Contact())  # none yet, as a command begins
    plug = Plug(config, None, wait=False, tell=lambda _: None, pulled=gone.append)

    class Typing(PinSource):
        def obtain(self, info):
            if typing:
                swap(pcscd, cards[0])
            return Credential(pin="000000", allow_final_try=False)

    if not typing:
        swap(pcscd, cards[0])
    with pytest.raises(TokenError, match="Token alice was pulled out, in the middle"):
        plug.use(plug.obtain_pin(Typing()), lambda _: None)
    assert (cards[0].tries(), gone) == (3, [known(FIRST)])


def test_without_pcscd_from_the_first_nobody_can_see_what_is_in_a_reader(
    opensc: Module, pcscd: CardReaders
) -> None:
    pcscd.stop()
    assert Lookout(Path(OPENSC), known(FIRST)).look() is Presence.GONE
    assert Lookout(Path(OPENSC), known(FIRST), in_reader=True).look() is Presence.UNSEEN


def test_a_card_that_another_program_holds_is_not_gone(
    opensc: Module, cards: tuple[Card, Card]
) -> None:
    cards[0].become(FIRST)
    insert(cards[0])
    lookout = Lookout(Path(OPENSC), known(FIRST))
    with held(READERS[0]):
        assert lookout.look() is Presence.UNSEEN
        assert lookout.look() is Presence.UNSEEN
    assert lookout.look() is Presence.HERE


def test_a_host_says_that_another_program_has_its_card(
    opensc: Module, cards: tuple[Card, Card]
) -> None:
    cards[0].become(FIRST)
    insert(cards[0])
    section, said = TokenSection(module=OPENSC), "Another program has the card in Virtual PCD 00 00"
    with held(READERS[0]), pytest.raises(TokenAwayError, match=said):
        find_hsm(section)
    login = HsmLogin(section, DEFAULT_PIN, lambda _: None)
    login.log_in()
    login.log_out()
    opensc.stop()
    with held(READERS[0]), pytest.raises(TokenAwayError, match=said):
        login.log_in()
    login.log_in()
    login.log_out()


def test_a_card_is_let_go_while_its_reader_can_tell(
    opensc: Module, cards: tuple[Card, Card]
) -> None:
    cards[0].become(FIRST)
    insert(cards[0])
    lookout = Lookout(Path(OPENSC), known(FIRST), let_go=True)
    assert lookout.look() is Presence.HERE
    with held(READERS[0]):
        assert lookout.look() is Presence.HERE
    remove(cards[0])
    assert lookout.look() is Presence.GONE
    insert(cards[0])
    assert lookout.look() is Presence.HERE


@contextmanager
def held(reader: str) -> Iterator[None]:
    """Have a card for oneself, as another program would."""
    result, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
    assert result == scard.SCARD_S_SUCCESS
    result, card, _ = scard.SCardConnect(
        context, reader, scard.SCARD_SHARE_EXCLUSIVE, scard.SCARD_PROTOCOL_ANY
    )
    assert result == scard.SCARD_S_SUCCESS
    try:
        yield
    finally:
        scard.SCardDisconnect(card, scard.SCARD_LEAVE_CARD)
        scard.SCardReleaseContext(context)


def test_a_glance_spares_the_module_what_the_readers_know(
    opensc: Module, pcscd: CardReaders, cards: tuple[Card, Card]
) -> None:
    glance = Glance(Path(OPENSC))
    assert glance.changed()
    assert not glance.changed()
    insert(cards[0])
    assert glance.changed()
    assert not glance.changed()
    pcscd.stop()
    assert glance.changed()
    assert glance.changed()


def test_a_module_without_readers_is_asked_every_time(
    module: Module, pcscd: CardReaders, cards: tuple[Card, Card]
) -> None:
    glance = Glance(find_module(None))
    assert [glance.changed() for _ in range(3)] == [True] * 3


def test_a_token_of_softhsm_taken_away_and_put_back(
    make_token: Callable[[str], Token], directory: Path
) -> None:
    token = make_token("traveller")
    lookout = Lookout(find_module(None), token.info.identity)
    assert lookout.look() is Presence.HERE
    place, away = directory / "softhsm", directory / "away"
    shutil.move(place, away)
    assert lookout.look() is Presence.GONE
    assert lookout.look() is Presence.GONE
    shutil.move(away, place)
    assert lookout.look() is Presence.HERE
    (own,) = (place / "tokens").iterdir()
    shutil.rmtree(own)
    assert lookout.look() is Presence.GONE


def test_a_token_whose_directory_is_gone_is_not_looked_for_patiently(
    make_token: Callable[[str], Token], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[Callable[[], object]] = []

    def patiently(find: Callable[[], object]) -> object:
        times.append(find)
        return really_patiently(find)

    session = replace(
        SESSION, token_serial=make_token("traveller").info.serial, token_label="traveller"
    )
    lookout = watch.lookout(ClientConfig(), session)
    really_patiently = presence.patiently
    monkeypatch.setattr(presence, "patiently", patiently)
    assert lookout.look() is Presence.HERE
    (own,) = (directory / "softhsm" / "tokens").iterdir()
    shutil.move(own, directory / "away")
    assert lookout.look() is Presence.GONE
    shutil.move(directory / "away", own)
    assert lookout.look() is Presence.HERE
    (directory / "softhsm" / "softhsm2.conf").unlink()
    assert lookout.look() is Presence.GONE
    assert len(times) == 1  # at the first look


def test_where_no_configuration_is_named_no_token_is_away_for_certain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(CONFIGURATION_VARIABLE, raising=False)
    assert not cannot_have("0123456789abcdef")


@contextmanager
def another_program_that_logs_in() -> Iterator[None]:
    """Again and again, on the one token that it finds."""
    other = subprocess.Popen(
        [sys.executable, "-m", "tests.token.logins"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"logged in\n"
        yield
        assert other.poll() is None
        other.communicate()


def test_a_token_of_softhsm_is_here_while_another_program_logs_in(
    make_token: Callable[[str], Token],
) -> None:
    lookout = Lookout(find_module(None), make_token("traveller").info.identity)
    with another_program_that_logs_in():
        assert {lookout.look() for _ in range(100)} == {Presence.HERE}


def test_a_token_of_softhsm_tells_of_itself_while_another_program_logs_in(
    make_token: Callable[[str], Token],
) -> None:
    token = make_token("traveller")
    with another_program_that_logs_in():
        assert len({token.info for _ in range(4000)}) == 1


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have the module show no token for three looks, as SoftHSM2 does now and then."""
    real = Module.present

    def hide_for_three_looks() -> None:
        left = iter(range(3))

        def present(self, *, restart=True):
            hidden = next(left, None) is not None
            return [] if hidden else real(self, restart=restart)

        monkeypatch.setattr(Module, "present", present)

    return hide_for_three_looks


def test_a_token_hidden_for_a_moment_is_here_at_any_look(
    make_token: Callable[[str], Token], hide: Callable[[], None]
) -> None:
    lookout = Lookout(find_module(None), make_token("traveller").info.identity)
    for _ in range(2):
        hide()
        assert lookout.look() is Presence.HERE


def test_a_command_finds_a_token_hidden_for_a_moment(
    token: Token, module: Module, hide: Callable[[], None]
) -> None:
    hide()
    assert module.choose(None).info == token.info


def test_a_long_reader_name_is_known_by_what_the_module_keeps_of_it() -> None:
    name = "A reader with a very long name indeed, of a very long-winded vendor, 00 00"
    assert Reader(name, occupied=True, count=1).slot_name == name[:64]
