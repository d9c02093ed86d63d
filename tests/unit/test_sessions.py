"""Records of tunnels: whatever lies beside them, and whoever drops them meanwhile."""

import threading

import pytest

from token_client import sessions
from token_client.record import Session
from token_client.session_states import (
    BY_HAND,
    EndBegun,
    LeftUnheard,
    LeftUnseen,
    Released,
    Seen,
    Stage,
    State,
    Went,
)
from token_client.sessions import SessionStore
from token_client.uptime import boot_id, uptime


def a_session(state=State.STANDING, why=None, **changes):
    facts = {
        "name": "carnet-00",
        "target": "work",
        "user_id": "alice@office",
        "objective_id": 3,
        "networks": ("10.20.0.0/16",),
        "virtual_address": "10.30.0.1",
        "ppk": True,
        "established_at": 1_000_000,
        "expires": 1_028_800,
        "token_label": "alice",
        "token_serial": "0123",
    }
    return Session(**{**facts, "stage": Stage(state, why), **changes})


@pytest.fixture
def store(tmp_path):
    made = SessionStore(tmp_path)
    made.keep(a_session())
    return made


def test_a_record_that_goes_away_meanwhile_is_none(store, tmp_path):
    (tmp_path / "session-gone.json").symlink_to(tmp_path / "nowhere")
    assert store.all() == [a_session()]


def test_a_directory_in_the_place_of_a_record_is_none(store, tmp_path):
    (tmp_path / "session-x.json").mkdir()
    assert store.all() == [a_session()]


@pytest.mark.parametrize("damaged", [b"{", b"[]", b'{"name": 1}', b'{"name": "carnet\x92"}'])
def test_what_is_no_record_is_removed(store, tmp_path, damaged):
    (tmp_path / "session-x.json").write_bytes(damaged)
    assert store.all() == [a_session()]
    assert not (tmp_path / "session-x.json").exists()


def test_a_record_of_which_half_is_written_is_read_when_it_is_whole(store, tmp_path, monkeypatch):
    """On a file system that is full it is written in its own place."""
    path = tmp_path / "session-carnet-00.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    monkeypatch.setattr(sessions, "sleep", lambda _: path.write_bytes(whole))
    assert store.all() == [a_session()]


WHY = "Token alice was pulled out."
STANDING, TO_END, ENDED = Stage(), Stage(State.TO_END, WHY), Stage(State.ENDED, WHY)
RELEASED = Stage(State.RELEASED, BY_HAND)


@pytest.fixture
def one_after_the_other(store, monkeypatch):
    """Returns what runs one change, and another while that one writes."""
    writing, go_on = threading.Event(), threading.Event()
    rewrite, take = sessions.rewrite_private, sessions.taken

    def slowly(path, data):
        writing.set()
        assert go_on.wait(20)
        rewrite(path, data)

    def asked(*lock):
        if writing.is_set():
            go_on.set()
        return take(*lock)

    def run(first, second):
        other = threading.Thread(target=first, args=(store,))
        other.start()
        assert writing.wait(20)
        try:
            second(store)
        finally:
            go_on.set()
            other.join(20)

    monkeypatch.setattr(sessions, "rewrite_private", slowly)
    monkeypatch.setattr(sessions, "taken", asked)
    return run


def changed(change):
    return lambda store: store.change("carnet-00", change)


def dropped(*why):
    return lambda store: store.drop("carnet-00", *why)


@pytest.mark.parametrize(
    ("before", "first", "second", "left"),
    [
        (Stage(State.UNSEEN), changed(Seen()), dropped(), []),
        (STANDING, changed(LeftUnseen()), dropped(), []),
        (STANDING, changed(Went(WHY)), changed(EndBegun(WHY)), [TO_END]),
        (STANDING, changed(EndBegun(WHY)), changed(Went(BY_HAND)), [TO_END]),
        (STANDING, changed(EndBegun(WHY)), changed(EndBegun()), [TO_END]),
        (TO_END, dropped(WHY), changed(Released(BY_HAND)), [RELEASED]),
        (TO_END, changed(Released(BY_HAND)), dropped(WHY), [RELEASED]),
        (ENDED, changed(Released(BY_HAND)), changed(LeftUnheard(WHY)), [RELEASED]),
        (ENDED, changed(LeftUnheard(WHY)), dropped(), []),
        (STANDING, changed(EndBegun(WHY)), lambda store: store.keep(a_session()), [TO_END]),
    ],
)
def test_of_two_at_once_neither_undoes_what_the_other_does(
    store, tmp_path, one_after_the_other, before, first, second, left
):
    store.keep(a_session(stage=before))
    one_after_the_other(first, second)
    assert [each.stage for each in store.all()] == left
    assert len(list(tmp_path.iterdir())) == len(left)


@pytest.mark.parametrize("change", [Seen(), Released(BY_HAND), LeftUnheard(WHY), EndBegun(WHY)])
def test_no_change_brings_a_record_back(store, tmp_path, change):
    store.drop("carnet-00")
    assert store.change("carnet-00", change) is None
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_row_is_not_written(store, monkeypatch):
    store.drop("carnet-00", WHY)
    monkeypatch.setattr(sessions, "rewrite_private", None)
    assert store.change("carnet-00", Seen()).stage == ENDED
    store.drop("carnet-00", "Its time is over.")
    assert [each.stage for each in store.all()] == [ENDED], "the first reason stays"


@pytest.mark.parametrize(
    ("stage", "begins"),
    [(TO_END, False), (RELEASED, False), (ENDED, True), (Stage(State.GONE, WHY), True)],
)
def test_what_is_yet_to_end_does_not_begin_anew(store, stage, begins):
    store.keep(a_session(stage=stage))
    assert store.keep(a_session(State.UNSEEN)) == begins
    assert [each.stage for each in store.all()] == [Stage(State.UNSEEN) if begins else stage]


def test_where_nothing_is_remembered_all_goes_on():
    nowhere = SessionStore(None)
    assert nowhere.keep(a_session())
    assert nowhere.change("carnet-00", EndBegun(WHY)) is None
    nowhere.drop("carnet-00", WHY)


@pytest.mark.parametrize("why", [None, WHY])
def test_a_record_that_cannot_say_that_its_session_ended_is_none(store, monkeypatch, why):
    def full(*_):
        raise OSError

    monkeypatch.setattr(sessions, "rewrite_private", full)
    store.drop("carnet-00", why)
    assert store.all() == []


def test_the_pairs_left_are_those_last_seen_on_the_sessions_own_token(store, tmp_path):
    other = {"token_serial": "4567", "established_at": 1_000_001}
    store.keep(a_session(name="carnet-01", pairs_left=7, **other))
    store.keep_pairs_left(a_session().token, 59)
    store.keep_pairs_left(a_session().token, 56)
    assert [session.pairs_left for session in store.all()] == [56, 7]
    (left,) = tmp_path.glob("left-*")
    left.write_bytes(b"{")
    assert [session.pairs_left for session in store.all()] == [None, 7]


def test_a_token_of_the_same_serial_number_has_pairs_of_its_own(store):
    store.keep(a_session(token_serial="00"))
    bobs = {"token_serial": "00", "token_label": "bob", "established_at": 1_000_001}
    store.keep(a_session(name="carnet-01", pairs_left=7, **bobs))
    store.keep_pairs_left(a_session(token_serial="00").token, 59)
    assert [session.pairs_left for session in store.all()] == [59, 7]


def test_to_tell_the_pairs_left_brings_no_record_back(store):
    store.drop("carnet-00")
    store.keep_pairs_left(a_session().token, 5)
    assert store.all() == []


def test_a_record_that_says_why_its_tunnel_ended_is_there_all_the_while(store, monkeypatch):
    """Whoever looks meanwhile is not to be told that there was none."""
    monkeypatch.setattr(sessions, "rewrite_private", lambda path, data: kept.append(path.exists()))
    kept = []
    store.drop("carnet-00", "Token alice was pulled out.")
    assert kept == [True]
    monkeypatch.undo()
    store.drop("carnet-00", "Token alice was pulled out.")
    assert [each.stage.why for each in store.all()] == ["Token alice was pulled out."]


def test_one_that_is_gone_is_not_brought_back_to_say_why(store):
    store.drop("carnet-00")
    store.drop("carnet-00", "Token alice was pulled out.")
    assert store.all() == []


@pytest.mark.parametrize(
    ("behind", "now", "left"),
    [(0, 1_000_000, 28_800), (36_000, 964_000, 28_800), (-36_000, 1_036_000, 28_800)],
)
def test_the_time_left_is_told_by_the_hosts_clock(behind, now, left):
    assert a_session(clock_behind=behind).seconds_left(now) == left


@pytest.mark.parametrize("now", [0, 1_000_000, 2_000_000])
@pytest.mark.parametrize("behind", [0, 36_000, -36_000])
def test_a_clock_that_is_set_changes_nothing(behind, now):
    began = {"boot": boot_id(), "clock_behind": behind}
    over = 28_806 + max(0, behind)
    for ago, left, is_over in ((10, 28_789, False), (28_700, 99, False), (over, 0, True)):
        seen = a_session(begun=uptime() - ago, **began)
        assert left <= seen.seconds_left(now) <= left + 1
        assert seen.is_over(now) == is_over


@pytest.mark.parametrize("boot", [None, "another"])
def test_where_nothing_else_tells_the_clock_of_the_day_counts(boot):
    seen = a_session(begun=uptime() - 10, boot=boot)
    assert (seen.seconds_left(1_000_000), seen.is_over(1_028_805)) == (28_800, True)


def test_no_time_is_left_of_what_is_over():
    assert a_session().seconds_left(2_000_000) == 0


def test_nothing_is_left_of_those_who_end_a_tunnel_one_after_the_other(tmp_path):
    store, second = SessionStore(tmp_path), []

    def end_it_again():
        with store.leaving("carnet-00"):
            second.append(True)

    waiting = threading.Thread(target=end_it_again)
    with store.leaving("carnet-00"):
        waiting.start()
        store.drop("carnet-00")
        assert second == []
    waiting.join()
    assert second == [True]
    assert list(tmp_path.iterdir()) == []


def test_a_tunnel_ends_also_where_there_can_be_no_lock(tmp_path):
    (tmp_path / "leaving-carnet-00.lock").mkdir()
    store, ended = SessionStore(tmp_path), []
    with store.leaving("carnet-00"):
        ended.append(True)
    store.wait_for_leave("carnet-00")
    assert ended == [True]
