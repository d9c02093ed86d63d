"""Records of tunnels: whatever lies beside them, and whoever drops them meanwhile."""

import threading

import pytest

from token_client import sessions
from token_client.sessions import Session, SessionStore
from token_client.uptime import boot_id, uptime


def a_session(**changes):
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
    return Session(**{**facts, **changes})


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


def test_what_is_no_record_is_removed(store, tmp_path):
    (tmp_path / "session-x.json").write_bytes(b"{")
    assert store.all() == [a_session()]
    assert not (tmp_path / "session-x.json").exists()


def test_a_record_of_which_half_is_written_is_read_when_it_is_whole(store, tmp_path, monkeypatch):
    """On a file system that is full it is written in its own place."""
    path = tmp_path / "session-carnet-00.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    monkeypatch.setattr(sessions, "sleep", lambda _: path.write_bytes(whole))
    assert store.all() == [a_session()]


@pytest.mark.parametrize("keep", [SessionStore.keep_seen, SessionStore.keep_unseen])
def test_what_is_ended_just_then_does_not_come_back(store, tmp_path, monkeypatch, keep):
    """Whoever is about it is let go first."""
    monkeypatch.setattr(sessions, "taken", lambda *_: store.drop("carnet-00"))
    keep(store, "carnet-00")
    assert list(tmp_path.iterdir()) == []


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
    assert [each.ended for each in store.all()] == ["Token alice was pulled out."]


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
