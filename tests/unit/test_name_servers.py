"""A tunnel's name servers, whoever else sees to them at the same time."""

import threading

import pytest

from tests.unit.test_sessions import a_session
from token_client import name_servers
from token_client.sessions import SessionStore


@pytest.mark.parametrize("why", ["its record says why", None])
def test_who_follows_sets_none_of_a_tunnel_that_is_ended_meanwhile(tmp_path, monkeypatch, why):
    """The end restores them before it drops the record."""
    followed = []
    turn = tmp_path / f"leaving-{a_session().name}.lock"
    here = type("Here", (), {"follow_servers": lambda *_: followed.append(turn.exists())})()
    monkeypatch.setattr(name_servers, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(name_servers, "inside", lambda: here)
    store, session = SessionStore(tmp_path), a_session(dns=("10.20.0.10",))
    store.keep(session)
    name_servers.follow(session)
    assert followed == [True]
    with store.leaving(session.name):
        follower = threading.Thread(target=name_servers.follow, args=(session,))
        follower.start()
        store.drop(session.name, why)
    follower.join()
    assert followed == [True]
