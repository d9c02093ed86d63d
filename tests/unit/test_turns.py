"""One program at a time gives a token its PIN: where the lock is, and who holds it for how long.

That another program does wait is in tests/token/test_card_pin.py.
"""

from contextlib import ExitStack

import pytest

from carnet.errors import TokenError
from carnet.token import turns
from carnet.token.identity import Identity
from carnet.token.turns import turn_at

ALICE, BOB = Identity("4711", "alice"), Identity("0815", "bob")


@pytest.fixture
def directories(tmp_path, monkeypatch):
    """Two places for a lock, which are all that there are."""
    made = [tmp_path / "first", tmp_path / "second"]
    for each in made:
        each.mkdir()
    monkeypatch.setattr(turns, "_directories", lambda: iter(made))
    return made


def files(directory):
    return sorted(directory.iterdir())


def test_the_lock_goes_with_the_last_of_this_process_who_has_the_turn(directories):
    first, second = ExitStack(), ExitStack()
    first.enter_context(turn_at(ALICE))
    second.enter_context(turn_at(ALICE))
    with turn_at(BOB):
        assert len(files(directories[0])) == 2
    (lock,) = files(directories[0])
    first.close()
    assert turns._locked(lock) is None
    second.close()
    assert files(directories[0]) == []
    with turn_at(ALICE):
        assert files(directories[0]) == [lock]


@pytest.mark.parametrize("obstacle", ["a link", "no directory"])
def test_where_one_place_has_no_lock_the_next_one_has(directories, obstacle):
    first, second = directories
    with turn_at(ALICE):
        (lock,) = files(first)
    if obstacle == "a link":
        lock.symlink_to("/dev/null")
    else:
        first.rmdir()
    with turn_at(ALICE):
        (lock,) = files(second)
        assert turns._locked(lock) is None
    assert files(second) == []


def test_where_no_lock_can_be_had_no_pin_is_given(directories):
    for directory in directories:
        directory.rmdir()
        directory.touch()
    with (
        pytest.raises(
            TokenError, match=r"alice .* was not given its PIN, .*first.*second"
        ) as caught,
        turn_at(ALICE),
    ):
        pytest.fail("It has the turn.")
    assert caught.value.sentence.endswith("or make one of the directories writable.")
    assert not caught.value.pin_given
