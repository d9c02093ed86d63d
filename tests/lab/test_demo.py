"""`make demo`: its claims hold, and it leaves nothing behind however it ends."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lab.waiting import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place():
    """Where the demonstration's world lies, so that what it leaves can be told from others'.

    Not below pytest's own directories: the path of a socket has 107 bytes at most.
    """
    with tempfile.TemporaryDirectory(prefix="carnet-demo-") as path:
        yield Path(path)


def start_demo(place, *argv, stderr=subprocess.STDOUT):
    return subprocess.Popen(
        [sys.executable, *(argv or ("-m", "demo"))],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def processes_of(place):
    """Every process that has the world's directory among its arguments."""
    found = []
    for proc in Path("/proc").iterdir():
        try:
            arguments = (proc / "cmdline").read_bytes() if proc.name.isdigit() else b""
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(place).encode() in arguments:
            found.append(proc)
    return found


def assert_nothing_left(place):
    wait_until(lambda: not processes_of(place), "the demonstration's processes to be gone")
    wait_until(lambda: not list(place.iterdir()), "the demonstration's files to be gone")
    assert str(place) not in Path("/proc/self/mounts").read_text()


def read_until(process, words):
    for line in process.stdout:
        if words in line:
            return
    pytest.fail(f"the demonstration ended without {words!r}")


@pytest.mark.timeout(900)  # all of it, which takes minutes where others work too
def test_every_claim_holds_and_nothing_is_left(place):
    process = start_demo(place)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "FAILS" not in output
    assert "\x1b" not in output
    assert "\r" not in output
    assert output.count("holds") >= 20
    assert_nothing_left(place)


FEW_PAIRS = """
import demo.playing
import demo.scenes
from lab.machine import Machine
from lab.template import Template, in_use

# Commands that end are forked. What stays is started by itself, as ever: that is to be ended.
def start(machine, *argv, start=Machine.start, **how):
    with in_use(None):
        return start(machine, *argv, **how)

Machine.start = start
demo.scenes.PAIRS = 2
with Template() as template, in_use(template):
    demo.playing.main()
"""


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGKILL, -9)],
)
def test_interrupted_it_leaves_nothing(place, number, status):
    process = start_demo(place, "-c", FEW_PAIRS)
    read_until(process, "The traveller plugs her token")
    assert processes_of(place)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == status
    assert_nothing_left(place)


SIGNALLED_AS_IT_FORKS = """
import os
import signal
import demo.playing

# There Python ignores what a signal's handler raises.
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))
demo.playing.main()
"""


def test_interrupted_as_it_forks_it_ends_too(place):
    process = start_demo(place, "-c", SIGNALLED_AS_IT_FORKS)
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert "nothing is left behind" in output
    assert_nothing_left(place)


INTERRUPTED_AGAIN = """
import os
import signal
import demo.playing
from demo.scenes import Demonstration
from lab.machine import Machine

def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)

def close(machine, close=Machine.close):
    interrupt()
    close(machine)
    interrupt()

Machine.close = close
Demonstration.run = {scene}
demo.playing.main()
"""


@pytest.mark.parametrize(
    ("scene", "status", "said"),
    [
        ("interrupt", 130, "Interrupted; nothing is left behind."),
        ("lambda *_: None", 0, "6 machines and their directory: 0 still there"),
    ],
    ids=["from the beginning", "as it ends"],
)
def test_interrupted_again_and_again_it_clears_all_away(place, scene, status, said):
    process = start_demo(place, "-c", INTERRUPTED_AGAIN.format(scene=scene))
    output, _ = process.communicate()
    assert (process.returncode, said in output) == (status, True), output
    assert_nothing_left(place)


def test_where_nobody_reads_on_it_clears_up_and_ends_as_programs_do(place):
    process = start_demo(place, stderr=subprocess.PIPE)
    assert process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", -signal.SIGPIPE)
    assert_nothing_left(place)


BROKEN = """
import demo.playing
from demo.scenes import Demonstration
from lab.errors import LabError

def run(self, lane):
    {scene}

Demonstration.run = run
demo.playing.main()
"""


@pytest.mark.parametrize(
    ("scene", "said"),
    [
        ("self.proofs.see('the moon is cheese', 'rock', holds=False)", "FAILS"),
        ("self.office.facts(self.world.host, 'false')", "The demonstration broke off"),
    ],
)
def test_what_does_not_hold_is_said_and_exits_with_1(place, scene, said):
    process = start_demo(place, "-c", BROKEN.format(scene=scene))
    output, _ = process.communicate()
    assert process.returncode == 1
    assert said in output
    assert_nothing_left(place)
