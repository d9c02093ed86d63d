"""What ends with a token that is pulled while a connection is made."""

from types import SimpleNamespace

from tests.unit.test_sessions import a_session
from token_client import removal
from token_client.config import ClientConfig


def test_only_its_own_tunnels_end_and_those_that_nobody_knows(monkeypatch):
    own = a_session(token_serial="00")
    tunnels = {
        "own": own,
        "bobs": a_session(token_serial="00", token_label="bob"),
        "carls": a_session(token_serial="01"),
        "unknown": None,
    }
    states = [SimpleNamespace(name=name, session=each) for name, each in tunnels.items()]
    ended = []
    monkeypatch.setattr(removal, "tunnels", lambda _: states)
    monkeypatch.setattr(removal, "end_session", lambda _driver, _store, name: ended.append(name))
    removal.end_unless_kept(None, ClientConfig(), own.token)
    assert ended == ["own", "unknown"]
