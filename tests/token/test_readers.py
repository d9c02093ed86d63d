"""PC/SC readers: a real pcscd with virtual readers, stopped, killed and started again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from smartcard import scard

from carnet.token import readers
from carnet.token.readers import ReaderWatcher, look_at_readers
from lab.readers import READERS, Card, CardReaders
from lab.waiting import wait_until


class Hints:
    """Counts the hints of a watcher; a test waits for what is seen by looking at a hint."""

    def __init__(self) -> None:
        self._came = threading.Condition()
        self._count = self._looked = 0

    def notify(self) -> None:
        with self._came:
            self._count += 1
            self._came.notify_all()

    def until(self, holds) -> None:
        """Look at every hint, and at no other time, until it holds."""
        while True:
            with self._came:
                came = self._came.wait_for(lambda: self._count > self._looked, 20)
                assert came, "no hint came"
                self._looked = self._count
            if holds():
                return


@contextmanager
def watched() -> Iterator[Hints]:
    hints = Hints()
    with ReaderWatcher(hints.notify):
        yield hints


def occupied() -> set[str] | None:
    now = look_at_readers()
    return None if now is None else {reader.name for reader in now if reader.occupied}


def test_readers_and_cards_are_seen(pcscd: CardReaders, cards: tuple[Card, Card]) -> None:
    assert tuple(reader.name for reader in look_at_readers() or ()) == READERS
    assert occupied() == set()
    cards[1].insert()
    wait_until(lambda: occupied() == {READERS[1]}, "the card in the second reader")


def test_insertion_and_removal_are_hinted_at(pcscd: CardReaders, cards: tuple[Card, Card]) -> None:
    with watched() as hints:
        for _ in range(3):
            cards[0].insert()
            hints.until(lambda: occupied() == {READERS[0]})
            cards[0].remove()
            hints.until(lambda: occupied() == set())


def test_a_card_out_and_in_again_between_two_looks_is_another_state(
    pcscd: CardReaders, cards: tuple[Card, Card]
) -> None:
    cards[0].insert()
    wait_until(lambda: occupied() == {READERS[0]}, "the card")
    before = look_at_readers()
    cards[0].remove()
    wait_until(lambda: occupied() == set(), "the empty reader")
    cards[0].insert()
    wait_until(lambda: occupied() == {READERS[0]}, "the card again")
    assert look_at_readers() != before


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_watcher_outlives_pcscd(pcscd: CardReaders, cards: tuple[Card, Card], end: str) -> None:
    with watched() as hints:
        for _ in range(2):
            getattr(pcscd, end)()
            hints.until(lambda: occupied() is None)
            pcscd.start()
            hints.until(lambda: occupied() == set())
            cards[0].insert()
            hints.until(lambda: occupied() == {READERS[0]})


def test_a_watcher_before_pcscd(pcscd: CardReaders, cards: tuple[Card, Card]) -> None:
    pcscd.stop()
    with watched() as hints:
        assert look_at_readers() is None
        pcscd.start()
        hints.until(lambda: occupied() == set())
        cards[0].insert()
        hints.until(lambda: occupied() == {READERS[0]})


def test_a_reader_unplugged_and_plugged_in_again(
    pcscd: CardReaders, cards: tuple[Card, Card]
) -> None:
    with watched() as hints:
        pcscd.stop()
        pcscd.start(readers=False)
        hints.until(lambda: look_at_readers() == ())
        pcscd.stop()
        pcscd.start()
        hints.until(lambda: occupied() == set())


def test_a_lost_event_is_found_by_looking(
    pcscd: CardReaders, cards: tuple[Card, Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for events is made deaf: it returns in its time, whatever happens."""
    ticks = threading.Semaphore(0)
    monkeypatch.setattr(readers, "_wait", lambda *_: ticks.acquire(timeout=20))
    with watched() as hints:
        hints.until(lambda: occupied() == set())
        cards[0].insert()
        wait_until(lambda: occupied() == {READERS[0]}, "the card")
        ticks.release()
        hints.until(lambda: occupied() == {READERS[0]})
        monkeypatch.undo()
        ticks.release(100)


def test_what_pyscard_raises_does_not_end_the_watcher(
    pcscd: CardReaders, cards: tuple[Card, Card], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [TypeError("not a context"), OSError("no"), SystemError("error return")]
    real = scard.SCardGetStatusChange

    def failing(*arguments):
        if failures:
            raise failures.pop()
        return real(*arguments)

    with watched() as hints:
        hints.until(lambda: occupied() == set())
        monkeypatch.setattr(scard, "SCardGetStatusChange", failing)
        cards[0].insert()
        hints.until(lambda: not failures and occupied() == {READERS[0]})


def test_without_the_library_there_are_no_readers_and_no_hints(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    readers._scard.cache_clear()
    monkeypatch.setattr(readers, "_LIBRARY", "libnowhere.so.1")
    try:
        with watched():
            assert look_at_readers() is None
    finally:
        readers._scard.cache_clear()
    assert capfd.readouterr() == ("", "")
