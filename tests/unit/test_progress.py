"""The progress bar."""

import threading

import pytest

from carnet.progress import progress_bar


def test_a_bar_has_no_thread_and_shows_the_first_step_and_the_last(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")  # a terminal that is "dumb" is shown none
    before = threading.active_count()
    with progress_bar("Minting", 3, wanted=True) as advance:
        advance()
        assert "1/3" in capsys.readouterr().err
        assert threading.active_count() == before
        advance(2)
    assert "3/3" in capsys.readouterr().err


def test_a_bar_that_is_not_wanted_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Minting", 1, wanted=False) as advance:
        advance()
    assert capsys.readouterr().err == ""
