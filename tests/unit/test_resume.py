"""`carnet resume` where no daemon is there to ask."""

import pytest
from click.testing import CliRunner

from carnet.errors import DaemonSilentError, NothingLeftError
from tests.unit.test_giving_up import lasting
from token_client import background
from token_client.commands import resume as command
from token_client.sessions import SessionStore


@pytest.mark.parametrize("kind", [NothingLeftError, DaemonSilentError])
def test_whose_daemon_does_not_answer_has_an_agent_all_the_same(tmp_path, monkeypatch, kind):
    """The kernel may carry it on; so may others, to which nobody has come yet."""
    sessions, left = [lasting(), lasting(name="carnet-01")], []
    for each in sessions:
        SessionStore(tmp_path).keep(each)

    def away(*_):
        raise kind("It does not answer.")

    monkeypatch.setattr(command, "memory_directory", lambda: tmp_path)
    monkeypatch.setattr(command, "driver", away)
    monkeypatch.setattr(command.configuration, "load", lambda: None)
    monkeypatch.setattr(background, "leave_to_agent", lambda each, _: left.append(each.name))
    done = CliRunner().invoke(command.resume)
    assert isinstance(done.exception, kind)
    assert sorted(left) == [each.name for each in sessions]
