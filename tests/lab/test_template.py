"""A command that forks from a template does what the same command does by itself."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.fork_server import READ_AS_THEY_LOAD
from lab.office import pipes
from lab.template import FOREIGN, OWN, Place, Template, in_use
from token_client.config import PATH_VARIABLE

TELLER = """#!/usr/bin/env python
import json, os, signal, sys
facts = {
    "argv": sys.argv,
    "environment": {name: os.environ[name] for name in os.environ if name != "LC_CTYPE"},
    "directory": os.getcwd(),
    "descriptors": sorted(each for each in os.listdir("/proc/self/fd") if each != "3"),
    "passed": [os.read(int(each), 99).decode() for each in sys.argv[1:2]],
    "stdin": sys.stdin.read(),
    "signals": {each.name: str(signal.getsignal(each)) for each in signal.valid_signals()
                if each in list(signal.Signals) and each is not signal.SIGCHLD},
    "own group": os.getpgrp() == os.getpid() or os.getppid() == 0,
    "name": __name__,
    "file": __file__,
}
print(json.dumps(facts))
sys.stderr.write("a word\\n")
sys.exit(7)
"""
"""Goes by a command's name, and tells all that a program can know of how it was started."""

OWN_PIDS = "/proc/self/ns/pid"

ENDS = {
    "done": "",
    "a status": "import sys; sys.exit(3)",
    "a sentence": "import sys; sys.exit('no')",
    "an error": "1 / 0",
    "an interrupt": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "a kill": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "at its exit": "import atexit; atexit.register(print, 'last words')",
    "a thread": "import threading, time\nthreading.Thread(target=lambda: print('late')).start()",
}


@pytest.fixture(scope="module")
def template():
    with Template() as made:
        yield made


@pytest.fixture
def both_ways(template):
    """Call a function twice, with its command forked and by itself; return both results."""

    def twice(call):
        with in_use(template):
            forked = call()
        with in_use(None):
            return forked, call()

    return twice


def outcome(done):
    return done.returncode, done.stdout, done.stderr


def named(directory, text, name="carnet-host"):
    """Write a program that goes by a command's name; return its path."""
    path = directory / name
    path.write_text(text)
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize("argv", [["--version"], ["frobnicate"], ["tokens"], ["status"]], ids=str)
def test_it_says_and_returns_the_same(world, both_ways, argv):
    forked, by_itself = both_ways(lambda: world.client.run(["carnet", *argv], check=False))
    assert outcome(forked) == outcome(by_itself)


def test_it_knows_the_same_of_how_it_was_started(world, both_ways, monkeypatch):
    monkeypatch.setenv("CARNET_OURS", "not for it")
    program = named(world.client.directory, TELLER)

    def told():
        with pipes({"pin": "1234"}) as (_, fds):
            argv = [program, str(fds[0]), "a word"]
            extra = {"CARNET_CRASH_AT": "somewhere"}
            done = world.client.run(argv, stdin="in", pass_fds=fds, extra=extra, check=False)
        return *outcome(done), fds

    (status, forked, said, _), (_, by_itself, other, fds) = both_ways(told)
    assert json.loads(forked) == json.loads(by_itself)
    facts = json.loads(forked)
    assert facts["passed"] == ["1234\n"]
    assert facts["descriptors"] == sorted(["0", "1", "2", str(fds[0])])
    assert (status, said, other) == (7, "a word\n", "a word\n")


STARTER = """#!/usr/bin/env python
import os, sys
from token_client import background
background.subprocess.Popen(
    [sys.executable, "-m", "another", "a word"], stdin=background.subprocess.DEVNULL,
    cwd=os.path.dirname(__file__), start_new_session=True)
"""
ANOTHER = """
import json, os, pathlib, sys
facts = {
    "argv": sys.argv[1:],
    "shown": pathlib.Path("/proc/self/cmdline").read_text().rstrip("\\0").split("\\0")[1:],
    "environment": {name: os.environ[name] for name in os.environ if name != "LC_CTYPE"},
    "directory": os.getcwd(),
    "descriptors": sorted(each for each in os.listdir("/proc/self/fd") if each != "3"),
    "stdin": sys.stdin.read(),
    "own session": os.getsid(0) == os.getpid(),
    "machine": os.uname().nodename,
}
pathlib.Path("begun").write_text(json.dumps(facts))
os.rename("begun", "told")
"""


def test_what_it_starts_to_outlive_it_knows_the_same(world, both_ways):
    """And so it is with its arguments as others see them: there agents are known by them."""
    place = world.client.directory
    program = named(place, STARTER, "carnet")
    (place / "another.py").write_text(ANOTHER)

    def told():
        world.client.run([program], extra={"CARNET_CRASH_AT": "somewhere"})
        world.client.wait_for_path(str(place / "told"))
        facts = json.loads((place / "told").read_text())
        (place / "told").unlink()
        return facts

    forked, by_itself = both_ways(told)
    assert forked == by_itself
    assert forked["shown"] == ["-m", "another", "a word"]


@pytest.mark.parametrize("end", ENDS)
def test_it_ends_the_same(world, both_ways, end):
    program = named(world.client.directory, f"#!/usr/bin/env python\n{ENDS[end]}\n")
    forked, by_itself = both_ways(lambda: world.client.run([program], check=False))
    assert outcome(forked)[:2] == outcome(by_itself)[:2]
    assert forked.stderr.splitlines()[-1:] == by_itself.stderr.splitlines()[-1:]


def test_a_signal_reaches_it_and_what_it_is_stopped_by(world, both_ways):
    waits = "#!/usr/bin/env python\nimport signal\nprint('here', flush=True)\nsignal.pause()\n"
    program = named(world.client.directory, waits)

    def ended_by(number):
        process = world.client.start([program], log="waits.log")
        process.wait_for_line("here")
        process.freeze()
        process.signal(number)
        process.thaw()
        return process.wait()

    for number in (signal.SIGTERM, signal.SIGKILL):
        assert both_ways(lambda sent=number: ended_by(sent)) == (-number, -number)


def test_it_sees_what_its_machine_sees(world, template):
    (world.host.directory / "only-here.toml").write_text("frobnicate = 1\n")
    elsewhere = {PATH_VARIABLE: str(world.host.directory / "only-here.toml")}
    with in_use(template):
        hidden = world.client.run(["carnet", "status"], extra=elsewhere, check=False)
        seen = world.host.run(["carnet", "status"], extra=elsewhere, check=False)
    assert "frobnicate" in seen.stderr
    assert "frobnicate" not in hidden.stderr


def test_it_goes_with_its_machine(world_of_its_own, template):
    with in_use(template):
        waiting = world_of_its_own.client.start(["carnet", "connect", "--wait"], log="waits.log")
    world_of_its_own.close()
    assert waiting.wait() == -signal.SIGKILL


@pytest.fixture
def world_of_its_own(request):
    with type(request.getfixturevalue("world"))() as made:
        yield made


def test_what_takes_too_long_is_ended(world, template):
    with in_use(template), pytest.raises(LabError, match="took over"):
        world.client.run(["carnet", "connect", "--wait"], seconds=0.2)
    assert "fork_server" not in world.client.run(["ps", "-e", "-o", "args"]).stdout


LOADING = """
import os, sys
from importlib import import_module

foreign, own = (each.split() for each in sys.stdin.read().splitlines())
looks = set()

def note(what):
    if str(what).startswith(("LANG", "LC_")) or str(what).endswith((".py", ".pyc")):
        return  # messages that click may translate, and code
    frame = sys._getframe(1)
    while frame.f_code.co_name != "<module>":
        frame = frame.f_back
    if frame.f_globals["__name__"] in own:
        looks.add(f"{frame.f_globals['__name__']} looks at {what}")

class Heard(dict):
    def get(self, name, default=None):
        note(name)
        return default
    def __getitem__(self, name):
        note(name)
        raise KeyError(name)
    def __contains__(self, name):
        note(name)
        return False

for name in foreign:
    import_module(name)
os.environ = Heard()
sys.addaudithook(lambda event, facts: event == "open" and note(facts[0]))
for name in own:
    import_module(name)
print(*sorted(looks), sep="\\n")
"""
"""Loads what is forked from, and tells what the product's modules look at as they load."""


def test_nothing_of_a_commands_own_is_looked_at_before_it_is_there():
    done = subprocess.run(
        [sys.executable, "-c", LOADING],
        input=f"{' '.join(FOREIGN)}\n{' '.join(OWN)}",
        capture_output=True,
        text=True,
        check=True,
    )
    assert READ_AS_THEY_LOAD == ("carnet.crash",)
    assert done.stdout.splitlines() == ["carnet.crash looks at CARNET_CRASH_AT"]


def test_a_machine_that_is_gone_takes_no_command_and_the_next_runs_here(tmp_path, template):
    text = f"#!/usr/bin/env python\nimport os; print(os.readlink({OWN_PIDS!r}))\n"
    program = named(tmp_path, text)
    environment = {"PATH": str(Path(sys.executable).parent)}
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(LabError, match="could not be forked"):
        template.run([program], Place(environment, tmp_path, ended.pid))
    done = template.run([program], Place(environment, tmp_path))
    assert (done.returncode, done.stdout.strip()) == (0, str(Path(OWN_PIDS).readlink()))


def test_its_end_leaves_nothing():
    place = Place({"PATH": str(Path(sys.executable).parent)}, Path.cwd())
    with Template() as made:
        assert made.run(["carnet", "--version"], place).returncode == 0
        handle = os.pidfd_open(made.pid)
    assert select.select([handle], [], [], 10)[0]
    os.close(handle)
