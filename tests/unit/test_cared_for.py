"""What becomes of a tunnel that `carnet connect` brought up, and failed after."""

import pytest

from carnet.errors import CarnetError, DaemonSilentError
from tests.unit.test_sessions import a_session
from token_client import closing, opening
from token_client.bringing_up import CUT_OFF
from token_client.config import ClientConfig
from token_client.heir import Heir
from token_client.sessions import SessionStore

FIRST = CarnetError("The agent cannot be started; end other programs.")
NOT_ENDED = (
    "the tunnel that stood could not be ended whole (The daemon does not answer); its key pair"
    " opens no other, and `carnet disconnect work` tries it again"
)


class Daemon:
    """One that ends the tunnel, unless it is silent."""

    def __init__(self, *, silent):
        self.silent = silent

    def take_leave(self, _):
        return True

    def down(self, _):
        if self.silent:
            raise DaemonSilentError("The daemon does not answer.")


def fail_once_it_stands(directory, monkeypatch, error, *, silent):
    """Return what is told of it, and which error is raised, once the tunnel stands."""
    monkeypatch.setattr(opening, "memory_directory", lambda: directory)
    monkeypatch.setattr(closing, "release", SessionStore.drop)
    SessionStore(directory).keep(a_session())
    told = []
    raised = pytest.raises(type(error))
    with (
        raised as raised_as,
        opening._cared_for(
            Daemon(silent=silent), Heir(ClientConfig(agent=False)), told.append
        ) as standing,
    ):
        standing.stands(a_session())
        raise error
    return told, raised_as.value


@pytest.mark.parametrize(("silent", "half"), [(False, CUT_OFF), (True, NOT_ENDED)])
def test_an_end_that_fails_hides_no_error_before_it(tmp_path, monkeypatch, silent, half):
    told, raised = fail_once_it_stands(tmp_path, monkeypatch, FIRST, silent=silent)
    assert raised is FIRST
    assert told == [f"{half[0].upper()}{half[1:]}."]


@pytest.mark.parametrize(("silent", "half"), [(False, CUT_OFF), (True, NOT_ENDED)])
def test_an_interrupt_says_also_that_it_could_not_be_ended(tmp_path, monkeypatch, silent, half):
    told, raised = fail_once_it_stands(tmp_path, monkeypatch, KeyboardInterrupt(), silent=silent)
    assert (told, raised.args) == ([], (half,))
