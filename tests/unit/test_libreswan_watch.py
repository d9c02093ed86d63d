"""How Libreswan's tunnels are watched: the kernel and the daemon as scripted, whack itself."""

import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from carnet.errors import IPsecError
from carnet.ipsec import libreswan_watch
from carnet.ipsec.driver import Change, TunnelEvent
from carnet.ipsec.libreswan_tools import Tools
from carnet.ipsec.libreswan_watch import Watch

NONE, ONE, TWO = {}, {"carnet-1": 2}, {"carnet-1": 2, "carnet-2": 4}
SILENT = IPsecError("It takes over 10 seconds.")
LIMIT = 20.0
"""Seconds after which nothing more is waited for."""


class Scripted:
    """A kernel that tells of changes, and a daemon that says one thing after the other.

    It is asked no more once it has said the last: the watch is stopped.
    """

    def __init__(self, control, *answers):
        self.control = control
        self.answers = list(answers)
        self.kernel, self.told = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def standing(self):
        answer = self.answers.pop(0)
        if not self.answers:
            self.watch.stop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def changes(self):
        self.told.send(b"an SA")

    def events(self):
        limit = threading.Timer(LIMIT, self.watch.stop)
        limit.start()
        try:
            return list(self.watch.events())
        finally:
            limit.cancel()


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    """Return what makes a watch: scripted(answers…), the first as it begins to watch."""
    made = []

    def make(*answers):
        script = Scripted(tmp_path / "pluto.ctl", *answers)
        made.append(script)
        monkeypatch.setattr(libreswan_watch, "_kernel_changes", lambda: script.kernel)
        script.watch = Watch(script.control, script.standing)
        return script

    monkeypatch.setattr(libreswan_watch, "AGAIN_SECONDS", 0.01)
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(tmp_path / "pluto.ctl"))
        daemon.listen()
        yield make
    for script in made:
        script.told.close()
        script.kernel.close()


@pytest.fixture
def often(monkeypatch):
    """Have the daemon asked often, though the kernel tells of nothing."""
    monkeypatch.setattr(libreswan_watch, "LOOK_SECONDS", 0.01)


def up(name):
    return TunnelEvent(name, Change.UP)


def down(name):
    return TunnelEvent(name, Change.DOWN)


@pytest.mark.usefixtures("often")
def test_what_comes_and_goes_is_told_once(scripted):
    script = scripted(ONE, TWO, TWO, NONE)
    script.changes()
    assert script.events() == [up("carnet-2"), down("carnet-1"), down("carnet-2")]


@pytest.mark.parametrize("first", [NONE, ONE], ids=["nothing new", "another"])
def test_what_does_not_show_at_once_is_looked_for_once_more(scripted, first):
    """No other change in the kernel tells of it."""
    script = scripted(NONE, first, TWO)
    script.changes()
    assert script.events() == [up(each) for each in sorted(first) + sorted(TWO.keys() - first)]


@pytest.mark.parametrize("newest", [6, 1], ids=["more", "what was before it"])
def test_of_what_stands_by_another_sa_it_is_told_that_it_came_up_anew(scripted, newest):
    """The peer may have led less into it."""
    script = scripted(TWO, TWO | {"carnet-1": newest}, TWO | {"carnet-1": newest})
    script.changes()
    assert script.events() == [TunnelEvent("carnet-1", Change.ANEW)]


@pytest.mark.usefixtures("often")
def test_what_no_change_told_of_is_found_by_and_by(scripted):
    assert scripted(NONE, NONE, NONE, ONE).events() == [up("carnet-1")]


def test_a_quiet_daemon_is_not_asked_again_and_again(scripted, monkeypatch):
    """The looks after one change are two; after them it is waited as long as ever."""
    waited = []
    wait = Watch._wait

    def noted(self, seconds):
        waited.append(seconds)
        return wait(self, min(seconds, 0.01))

    monkeypatch.setattr(Watch, "_wait", noted)
    script = scripted(NONE, NONE, NONE, NONE)
    script.changes()
    script.events()
    look, again = libreswan_watch.LOOK_SECONDS, libreswan_watch.AGAIN_SECONDS
    assert waited == [look, again, look, look]


@pytest.mark.usefixtures("often")
def test_one_answer_that_does_not_come_ends_no_watch(scripted):
    script = scripted(NONE, SILENT, ONE, SILENT, NONE)
    script.changes()
    assert script.events() == [up("carnet-1"), down("carnet-1")]


def test_a_daemon_that_stays_silent_is_given_up(scripted):
    script = scripted(ONE, SILENT, SILENT, NONE)
    script.changes()
    assert script.events() == []
    assert script.answers == [NONE]


HEARS = """
import subprocess
from carnet.ipsec.libreswan_watch import _kernel_changes
policy = "src 10.1.0.0/16 dst 10.2.0.0/16 dir out action block".split()
with _kernel_changes() as changes:
    changes.settimeout(20)
    subprocess.run(["ip", "xfrm", "policy", "add", *policy], check=True)
    changes.recv(1)
"""


def test_the_kernel_tells_of_policies_as_of_sas():
    """With IKEv1 it is by a change of these alone that a tunnel is seen to come up at Target."""
    subprocess.run(["unshare", "--net", sys.executable, "-c", HEARS], check=True)


@contextmanager
def answering(path, *said, hears=True):
    """Have a daemon at that socket which answers one order so, and then hangs up."""

    def answer():
        connection, _ = daemon.accept()
        with connection:
            if hears:
                connection.recv(1 << 16)
            for each in said:
                connection.sendall(each)

    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(path))
        daemon.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


LINE = b'000 #1: "carnet-1"[1] 192.0.2.1:500 STATE_MAIN_R3 (IKE SA established);\n'
BROKEN = {
    "within a line": ((LINE, LINE[:20]), True),
    "before anything": ((), False),
    "with something else": ((b"nothing of pluto's\n",), True),
}


@pytest.mark.parametrize(("said", "hears"), BROKEN.values(), ids=BROKEN)
def test_an_answer_that_broke_off_is_none(tmp_path, said, hears):
    """The tunnels that it does not name would be taken for ended."""
    path = tmp_path / "pluto.ctl"
    with answering(path, *said, hears=hears), pytest.raises(IPsecError, match="broke off"):
        Tools(path).whack("--showstates")


def test_an_answer_may_be_in_any_bytes(tmp_path):
    """Peers name themselves, and any line may have such a name in it."""
    path = tmp_path / "pluto.ctl"
    with answering(path, LINE, LINE.replace(b"carnet", b"\xff")):
        assert Tools(path).whack("--showstates").startswith(LINE.decode())


ASKS = """
import sys
from pathlib import Path
from carnet.errors import IPsecError
from carnet.ipsec.libreswan_tools import Tools
try:
    Tools(Path(sys.argv[1])).whack("--status")
except IPsecError as error:
    print(error.sentence)
"""


def test_who_may_not_ask_is_told_so(tmp_path):
    """As root without root's rights over files."""
    path = tmp_path / "pluto.ctl"
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(path))
        daemon.listen()
        path.chmod(0)
        powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
        done = subprocess.run(
            [*powerless, sys.executable, "-c", ASKS, str(path)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert "run this as root" in done.stdout
