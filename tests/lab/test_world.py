"""The lab itself: who reaches and sees whom, and that nothing of it is left behind."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

import lab.machine
from lab.capture import Capture
from lab.charon import VICI, Charon
from lab.errors import LabError
from lab.machine import Machine
from lab.network import CLIENT_ADDRESS, HOST_ADDRESS, SERVER_ADDRESS, TARGET_ADDRESS
from lab.packets import read_packets
from lab.waiting import TIME_LIMIT, wait_until
from lab.world import World
from tests.lab.test_connect import content

MAKER = """
import sys
from lab.charon import Charon, choose_lane
from lab.world import World
world = World()
Charon(world.client, choose_lane()).start()
world.host.start(["sleep", "1000"])
print(world.directory, *(machine.pid for machine in world.machines), flush=True)
sys.stdin.read()
"""

CALL = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)"

LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], 7777)) as server:
    while True:
        connection, (peer, _) = server.accept()
        print(peer, flush=True)
"""


def interfaces() -> str:
    return subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout


def mounts() -> list[str]:
    """Return what is mounted here and may be a machine's: other tests mount theirs meanwhile."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if line.split()[0] in ("machine", "proc")]


def reaches(machine, address: str) -> bool:
    done = machine.run(["python", "-c", CALL, address, "7777"], check=False)
    return done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda n: n.name)
def test_a_maker_that_is_killed_leaves_nothing_behind(number):
    before = interfaces(), mounts()
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", MAKER],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as maker:
        directory, *pids = maker.stdout.readline().split()
        handles = [os.pidfd_open(int(pid)) for pid in pids]
        maker.send_signal(number)
    for handle in handles:
        assert select.select([handle], [], [], TIME_LIMIT)[0], "a keeper lives on"
        os.close(handle)
    wait_until(lambda: not Path(directory).exists(), "the directory to go")
    assert (interfaces(), mounts()) == before


def test_closing_ends_every_process_and_removes_the_directory(lane):
    before = interfaces(), mounts()
    with World() as world:
        charon = Charon(world.client, lane)
        charon.start()
        handle = os.pidfd_open(charon.pid)
        assert world.directory.stat().st_mode & 0o777 == 0o700
    assert select.select([handle], [], [], 0)[0]
    os.close(handle)
    assert not world.directory.exists()
    assert (interfaces(), mounts()) == before


def test_each_machine_sees_its_own_directory_and_the_token_only_where_it_is(world):
    for machine in world.machines:
        (world.directory / machine.name / "mine").touch()
    (world.token / "card").touch()
    listing = 'cd "$1" && ls */*'
    for machine in world.machines:
        seen = machine.run(["sh", "-c", listing, "sh", str(world.directory)]).stdout.split()
        entitled = ["token/card"] if machine.name in ("officer", "client") else []
        assert sorted(name for name in seen if name.endswith(("mine", "card"))) == sorted(
            [f"{machine.name}/mine", *entitled]
        )


def test_nobody_writes_where_the_others_directories_would_be(world):
    with pytest.raises(LabError, match="Read-only file system"):
        world.client.run(["touch", str(world.host.directory / "planted")])


def test_a_machine_sees_no_token_of_this_machines_own_softhsm(monkeypatch, tmp_path):
    """Where it was told of none SoftHSM2 takes the system's: there would be one too many."""
    tokens, own = tmp_path / "tokens", tmp_path / "own"
    for directory in (tokens, own):
        directory.mkdir()
    (tokens / "somebodys").touch()
    monkeypatch.setattr(lab.machine, "SYSTEM_TOKENS", tokens)
    machine = Machine("machine", own)
    try:
        assert machine.run(["ls", "-A", str(tokens)]).stdout == ""
    finally:
        machine.close()


def test_each_machine_has_a_run_directory_of_its_own(world):
    world.client.run(["touch", "/run/mark"])
    assert world.client.path("/run/mark").exists()
    assert not world.host.path("/run/mark").exists()
    assert not Path("/run/mark").exists()
    assert not world.host.path(VICI).exists()


@pytest.mark.parametrize(
    ("caller", "callee", "address", "seen_as"),
    [
        ("client", "host", HOST_ADDRESS, "203.0.113.1"),
        ("client", "target", TARGET_ADDRESS, "198.51.100.1"),
        ("host", "target", TARGET_ADDRESS, HOST_ADDRESS),
        ("target", "server", SERVER_ADDRESS, "10.20.0.1"),
        ("client", "server", SERVER_ADDRESS, None),
        ("host", "server", SERVER_ADDRESS, None),
        ("host", "client", CLIENT_ADDRESS, None),
        ("officer", "host", HOST_ADDRESS, None),
    ],
)
def test_who_reaches_whom_and_under_which_address(world, caller, callee, address, seen_as):
    log = f"{caller}-{callee}.log"
    with_python = ["python", "-c", LISTEN, address]
    listener = getattr(world, callee).start(with_python, log=log)
    getattr(world, callee).wait_for_port(7777)
    assert reaches(getattr(world, caller), address) == (seen_as is not None)
    if seen_as:
        assert listener.wait_for_line("[0-9.]+") == seen_as
    listener.kill()


def test_programs_find_nothing_of_ours_in_their_environment(world, monkeypatch):
    monkeypatch.setenv("CARNET_PIN", "123456")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1234")
    names = {line.split("=")[0] for line in world.client.run(["env"]).stdout.splitlines()}
    assert names == {"HOME", "PATH", "LANG", "PWD"} & names | {"HOME", "PATH", "LANG"}


def test_a_command_that_fails_says_what_it_printed_and_not_what_it_was_told(world):
    with pytest.raises(LabError, match="ended with 3: the reason") as raised:
        world.client.run(["sh", "-c", "cat; echo the reason; exit 3"], stdin="")
    assert "cat" not in str(raised.value)


def test_a_program_that_ends_before_it_is_ready_is_reported_with_its_log(world):
    process = world.client.start(["sh", "-c", "echo no such card; exit 1"], log="early.log")
    with pytest.raises(LabError, match="no such card"):
        process.wait_for_line("ready")
    assert process.wait() == 1


def test_what_another_program_wrote_to_the_same_log_is_not_its_own(world):
    world.client.start(["echo", "ready: the first"], log="again.log").wait()
    second = world.client.start(
        ["sh", "-c", "read line; echo ready: the second; cat"], log="again.log", stdin=PIPE
    )
    with pytest.raises(LabError, match="still waiting"):
        second.wait_for_line("ready", 0)
    second.stdin.write(b"go on\n")
    second.stdin.flush()
    assert second.wait_for_line("ready") == "ready: the second"
    second.kill()


def test_a_thread_goes_into_a_machines_network_and_comes_back(world):
    before = interfaces()
    with world.client.network():
        assert CLIENT_ADDRESS in subprocess.check_output(["ip", "address"], text=True)
    assert interfaces() == before
    with pytest.raises(ZeroDivisionError), world.client.network():
        _ = 1 / 0
    assert interfaces() == before


def test_stopping_a_program_reaches_the_program_itself(world):
    script = (
        "trap 'echo stopped; exit 7' TERM; echo ready; while :; do read line <> /dev/null; done"
    )
    process = world.client.start(["bash", "-c", script], log="stop.log")
    process.wait_for_line("ready")
    assert process.stop() == 7
    assert process.output() == "ready\nstopped\n"


def test_a_command_that_takes_too_long_is_ended(world):
    with pytest.raises(LabError, match="took over"):
        world.officer.run(["sleep", "1000"], seconds=0.2)
    commands = world.officer.path("proc")
    wait_until(
        lambda: not any(b"sleep" in content(path) for path in commands.glob("[0-9]*/cmdline")),
        "sleep to end",
    )


class Interrupted(Capture):
    """One that is always looked at while tcpdump is in the middle of a packet."""

    def _tail(self, start):
        with self.path.open("ab") as file:
            # What tcpdump writes next takes its place.
            file.write(bytes(20))
        return super()._tail(start)


def test_a_capture_is_cut_between_packets(world):
    """A long packet is written in pieces, and the file may end with one of them."""
    with Interrupted(world.router) as capture:
        begin, end = capture.flush(), capture.flush()
        written = capture.path.read_bytes()
        assert capture.count("udp dst port 9") >= 2
    kinds = [packet.kind for packet in read_packets(written[begin:end])]
    assert kinds.count("UDP") == 1
    for piece in (written[begin:], written[begin : end - 1]):
        with pytest.raises(LabError, match="does not begin or end with a packet"):
            list(read_packets(piece))
