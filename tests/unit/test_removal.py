"""What locks the screen when a token is pulled."""

import os

from lab.waiting import wait_until
from token_client import removal


def test_a_lock_that_stays_in_the_foreground_is_a_failure_and_is_not_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(removal, "_LOCK_SECONDS", 0.01)
    gate, done = tmp_path / "gate", tmp_path / "done"
    os.mkfifo(gate)
    with gate.open("r+b", buffering=0) as opened:
        command = ("sh", "-c", 'read word <"$0"; : >"$1"', str(gate), str(done))
        failure = removal.lock_screen(command)
        assert failure == "sh has not ended and is left running, so nobody knows whether it locked"
        opened.write(b"on\n")
        wait_until(done.exists, "the end of what locks")
    (locking,) = removal._left_running
    assert locking.wait() == 0
    removal._left_running.clear()


def test_what_cannot_be_run_or_fails_is_said():
    assert removal.lock_screen(("true",)) is None
    assert removal.lock_screen(("false",)) == "false ended with 1"
    assert removal.lock_screen(("/nowhere/lock",)) == "/nowhere/lock: No such file or directory"
