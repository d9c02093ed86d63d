"""Which addresses Clients come to know with MOBIKE that Target's configuration does not name."""

import json
from types import SimpleNamespace

import pytest

from target_agent import unnamed
from target_agent.unnamed import warn_of_unnamed

V4, V6 = "198.51.100.2", "2001:db8::2"
LISTED = json.dumps(
    [
        {"addr_info": [{"local": V4}, {"local": V6}, {"local": "2001:db8::7", "temporary": True}]},
        {"addr_info": [{"local": "10.20.0.1"}, {"local": "fd20::1"}]},
        {},
        {"addr_info": [{}]},
    ]
)


@pytest.fixture
def warned(monkeypatch):
    """Return what is warned of by a Target with that driver, and these addresses named."""
    said = []
    log = SimpleNamespace(warning=lambda event, **facts: said.append((event, facts["addresses"])))
    monkeypatch.setattr(unnamed, "log", log)

    def ask(named, driver="strongswan", listed=LISTED):
        monkeypatch.setattr(unnamed, "ip", lambda *_: SimpleNamespace(stdout=listed))
        said.clear()
        warn_of_unnamed(SimpleNamespace(name=driver), named)
        return said

    return ask


@pytest.mark.parametrize(
    ("named", "missing"),
    [((V4,), (V6,)), ((V6,), (V4,)), ((V4, V6), None), (("203.0.113.9",), None)],
)
def test_what_is_beside_a_named_one_and_not_named_is_told(warned, named, missing):
    assert warned(named) == ([("addresses-not-named", missing)] if missing else [])


def test_nothing_is_told_where_the_daemon_tells_nobody_or_nothing_is_listed(warned):
    assert warned((V4,), driver="libreswan") == []
    assert warned((V4,), listed="nonsense") == []
    assert warned((V4,), listed="") == []
