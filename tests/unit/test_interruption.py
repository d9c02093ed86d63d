"""Which signals interrupt a command, and how often."""

import os
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from carnet import interruption
from host_agent.cli import cli as host_command

SIGNALS = interruption.SIGNALS


@pytest.fixture(autouse=True)
def restored():
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    hook = sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_interrupts_and_the_next_do_not(number):
    interruption.listen()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    for later in SIGNALS:
        os.kill(os.getpid(), later)


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption.listen()
    os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_what_is_to_be_finished_is_interrupted_when_it_is():
    interruption.listen()
    interruption.hold()
    interrupt()
    with pytest.raises(KeyboardInterrupt, match="it stands"):
        interruption.let_go("it stands")
    interrupt()


def test_what_is_to_be_finished_and_takes_long_is_interrupted_by_the_second():
    interruption.listen()
    interruption.hold()
    interrupt()
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    interrupt()
    interruption.let_go("it stands")


def test_nothing_waits_where_nobody_interrupted():
    interruption.listen()
    interruption.hold()
    interruption.let_go("it stands")
    with pytest.raises(KeyboardInterrupt):
        interrupt()


@pytest.mark.parametrize(
    ("argv", "hears"),
    [
        (["keys", "--user", "serve"], [True]),
        (["--config", "serve", "audit", "verify"], [True]),
        (["--config", "keys", "serve"], []),
    ],
    ids=["--user serve", "--config serve", "serve"],
)
def test_all_of_the_host_s_commands_hear_but_its_service(monkeypatch, tmp_path, argv, hears):
    """By what the command is, wherever such a word stands."""
    heard = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interruption, "listen", lambda: heard.append(True))
    CliRunner().invoke(host_command, argv)
    assert heard == hears


IN_A_FORK = """
import os, signal
from carnet import interruption
interruption.listen()
told, tell = os.pipe()
os.set_blocking(tell, False)
# By this a signal wakes the main thread, whichever thread it came to.
signal.set_wakeup_fd(tell)
# There Python ignores what a signal's handler raises.
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))
try:
    if os.fork() == 0:
        os._exit(0)
    while True:
        os.read(told, 1)
except KeyboardInterrupt:
    print("interrupted")
"""

IN_A_DESTRUCTOR = """
import os, signal
from carnet import interruption

class Search:
    def __del__(self):
        raise ValueError("its session is closed")

interruption.listen()
search = Search()
if {interrupted}:
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass
del search
"""

AFTER_THE_END = """
import atexit, os, signal, sys
from carnet import interruption
from carnet.entry import enter

class Command:
    @staticmethod
    def main():
        interruption.listen()
        atexit.register(lambda: print(signal.getsignal(signal.SIGALRM).name))
        atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
        sys.exit(3)

sys.modules["command"] = Command
enter("command", "carnet")
"""


def run(program):
    argv = [sys.executable, "-c", program]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


WITHOUT_ALARMS = """
import signal
del signal.SIGALRM, signal.setitimer
"""
"""As on Windows."""


@pytest.mark.parametrize("before", ["", WITHOUT_ALARMS], ids=["alarms", "no alarms"])
def test_an_interrupt_that_python_ignores_comes_again(before):
    done = run(before + IN_A_FORK)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


@pytest.mark.parametrize(("interrupted", "said"), [(True, False), (False, True)])
def test_what_was_cut_off_says_nothing_as_it_is_taken_apart(interrupted, said):
    done = run(IN_A_DESTRUCTOR.format(interrupted=interrupted))
    assert ("its session is closed" in done.stderr) is said


def test_an_interrupt_after_the_end_changes_nothing():
    """Nor one that was to come again: an alarm that is not ignored would end Python as it ends."""
    done = run(AFTER_THE_END)
    assert (done.returncode, done.stdout, done.stderr) == (3, "SIG_IGN\n", "")
