"""Who waits at a terminal for a tunnel to end is told what for, and nobody else is."""

import sys
import threading
from types import SimpleNamespace

import pytest

from token_client import long_wait


@pytest.mark.parametrize("terminal", [True, False])
def test_a_long_wait_is_explained_on_a_terminal(monkeypatch, terminal):
    told, said = [], threading.Event()

    def tell(sentence):
        told.append(sentence)
        said.set()

    monkeypatch.setattr(long_wait, "LONG_SECONDS", 0.001)
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: terminal))
    with long_wait.said_if_long(tell):
        assert said.wait(30 if terminal else 0) == terminal
    assert [each.startswith("The tunnel is being ended; ") for each in told] == [True] * terminal


def test_what_ends_soon_is_not_explained(monkeypatch):
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    told = []
    with long_wait.said_if_long(told.append):
        pass
    assert told == []
