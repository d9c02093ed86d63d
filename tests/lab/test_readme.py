"""The README's first steps, followed as they are written."""

import re
import shutil
from pathlib import Path

import pytest

from carnet.files import private_directory
from lab.charon import Charon
from lab.http_client import request
from lab.network import SERVER_ADDRESS
from lab.office import Secrets
from lab.terminal import Terminal
from lab.world import World
from tests.lab.offices import FILE, FILE_SERVER, FILE_URL

README = Path(__file__).parents[2] / "README.md"

OVERLAY = """
for place in /etc /var/lib; do
    own=/run/own$place
    mkdir -p $own/upper $own/work
    mount -t overlay overlay -o lowerdir=$place,upperdir=$own/upper,workdir=$own/work $place
done
"""
"""Lets a machine write to /etc and /var/lib as if they were its own."""


def written_steps():
    """The commands of the README's console blocks: machine and line."""
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [tuple(line.split("# ", 1)) for line in lines]


class Reader:
    """Somebody who types what the README says, and secrets where they are asked for."""

    def __init__(self, world, lane):
        self.world = world
        self.secrets = Secrets()
        self.serving = []
        self.charons = [Charon(world.client, lane), Charon(world.target, lane)]
        for machine in (world.host, world.target):
            machine.run(["sh", "-c", OVERLAY])

    def prompts(self, machine):
        hsm = machine is self.world.host
        known = self.secrets
        return {
            r"(?i)passphrase[^:\r\n]*: ": known.passphrase,
            r"SO PIN[^:\r\n]*: ": known.hsm_so_pin if hsm else known.so_pin,
            r"(?<!SO )PIN[^:\r\n]*: ": known.hsm_pin if hsm else known.pin,
        }

    def follow(self, machine_name, line):
        machine = getattr(self.world, machine_name)
        terminal = Terminal(machine, ["sh", "-c", line], self.prompts(machine))
        if line.endswith(" serve"):
            terminal.type_until('"event": "ready"')
            self.serving.append(terminal)
            return
        assert terminal.finish() == 0, f"{machine_name}# {line}\n{terminal.output}"

    def take(self, steps, who, part):
        """Take the first step of somebody's that has this in it."""
        if who == "carry":
            self.carry(*part.split())
            return
        step = next(step for step in steps if step[0] == who and part in step[1])
        steps.remove(step)
        self.follow(*step)

    def carry(self, source, destination, name):
        """What the prose says goes from hand to hand."""
        here, there = (getattr(self.world, m).directory / name for m in (source, destination))
        (shutil.copytree if here.is_dir() else shutil.copy)(here, there)


@pytest.fixture
def reader(lane):
    with World() as world:
        made = Reader(world, lane)
        yield made
        for terminal in made.serving:
            terminal.close()


def plug(world, machine):
    place = machine.directory / ".local/share/carnet/softhsm"
    private_directory(place.parent)
    place.symlink_to(world.token)


ORDER = [
    ("officer", ["init", "certificates host", "certificates target"]),
    ("carry", ["officer host host-link", "officer target target-link"]),
    ("host", ["token-init", "init --name", "cp ", "transport-key"]),
    ("carry", ["host officer host-transport.pem"]),
    ("officer", ["token-init", "mint", "list", "sheet"]),
    ("carry", ["officer host alice.batch"]),
    ("target", ["init --name", "cp ", "users add", "serve"]),
    ("host", ["import", "keys", "serve"]),
    ("client", ["doctor", "connect", "status"]),
]
"""Who does what when, as the README's prose has it."""


def test_the_first_steps_lead_to_a_tunnel(reader):
    world = reader.world
    (world.server.directory / "plan.txt").write_bytes(FILE)
    argv = ["python", str(FILE_SERVER), SERVER_ADDRESS, "80", str(world.server.directory)]
    world.server.start(argv)
    for machine in (world.officer, world.client):
        plug(world, machine)
    for charon in reader.charons:
        charon.start()
    steps = written_steps()
    for who, parts in ORDER:
        for part in parts:
            reader.take(steps, who, part)
    assert request(world.client, "GET", FILE_URL).body == FILE
    reader.take(steps, "client", "disconnect")
    assert steps == []
