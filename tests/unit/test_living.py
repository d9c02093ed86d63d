"""Whether an IPsec daemon lives whose socket does not answer."""

import shutil
import socket
import subprocess

import pytest

from carnet.ipsec.living import lives
from lab.waiting import wait_until

NAME = "carnet-daemon"


@pytest.fixture
def program(tmp_path):
    """A program of that name, which does nothing."""
    program = tmp_path / NAME
    program.symlink_to(shutil.which("sleep"))
    return program


@pytest.mark.parametrize("gone", [False, True], ids=["there", "removed"])
def test_who_listens_lives_though_the_socket_s_file_is_gone(tmp_path, gone):
    path = tmp_path / "daemon.socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert not lives(path, ())
        listener.listen()
        if gone:
            path.rename(tmp_path / "elsewhere")
        assert lives(path, ())
        assert not lives(tmp_path / "elsewhere", ())
    assert not lives(path, ())


def test_a_program_of_that_name_lives_until_it_has_ended(tmp_path, program):
    path = tmp_path / "daemon.socket"
    with subprocess.Popen([program, "infinity"]) as process:
        assert lives(path, [NAME])
        assert not lives(path, [f"{NAME}-2"])
        process.kill()
        wait_until(lambda: not lives(path, [NAME]), "its end, of which nobody has heard yet")
    assert not lives(path, [NAME])


def test_what_cannot_be_looked_at_counts_as_living(tmp_path, monkeypatch):
    monkeypatch.setattr("carnet.ipsec.living._PROC", tmp_path)
    assert lives(tmp_path / "daemon.socket", [NAME])
