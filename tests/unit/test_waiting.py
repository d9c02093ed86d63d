"""`connect --wait`: when the module is asked again."""

from types import SimpleNamespace

import pytest

from carnet.errors import TokenAwayError
from carnet.token.identity import Identity
from carnet.token.readers import Reader
from token_client import waiting

CARD = Reader("reader", occupied=True, count=2)
EMPTY = Reader("reader", occupied=False, count=1)


class Module:
    """Shows one list of tokens after the other; the last one for ever."""

    def __init__(self, *listings):
        self._listings = list(listings)
        self.asked = 0

    def present(self, *, restart):
        self.asked += 1
        return self._listings.pop(0) if len(self._listings) > 1 else self._listings[0]


def token(label):
    info = SimpleNamespace(identity=Identity(label, label), initialised=True, login_required=True)
    return SimpleNamespace(info=info)


@pytest.fixture
def look(monkeypatch, tmp_path):
    """Return what waits for alice, where nothing changes at the readers after the first look."""

    def made(module, *readers):
        changes = iter([True])
        glance = SimpleNamespace(readers=readers, changed=lambda: next(changes, False))
        monkeypatch.setattr(waiting, "Glance", lambda _: glance)
        monkeypatch.setattr(waiting, "load_module", lambda _: module)
        monkeypatch.setattr(waiting, "use_default", lambda: None)
        return waiting._Wait(tmp_path, "alice", lambda _: None)._look

    return made


def test_a_module_that_does_not_start_is_named_once(monkeypatch, tmp_path):
    def load(_):
        raise TokenAwayError("The module does not start; look at its configuration.")

    told = []
    monkeypatch.setattr(waiting, "load_module", load)
    monkeypatch.setattr(waiting, "use_default", lambda: None)
    wait = waiting._Wait(tmp_path, None, told.append)
    for _ in range(2):
        assert wait._look() is None
        wait._say_what_for()
    assert told == [
        "Waiting for a token; plug it in, or end this with Ctrl-C.",
        "The module does not start; look at its configuration.",
    ]


def test_a_card_that_could_not_be_read_just_then_is_asked_again(look):
    alice = token("alice")
    look_once = look(Module([], [], [alice]), CARD)
    assert look_once() is None
    assert look_once() is alice


@pytest.mark.parametrize(("listed", "reader"), [([], EMPTY), ([token("bob")], CARD)])
def test_where_nothing_changes_nothing_is_asked(look, listed, reader):
    module = Module(listed)
    look_once = look(module, reader)
    assert look_once() is None
    asked = module.asked
    assert look_once() is None
    assert module.asked == asked
