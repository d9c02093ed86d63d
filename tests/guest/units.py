"""Agents as their operators install them: below /opt, as units of the guest's own systemd.

The units are what `install-units` writes. Added, as `systemctl edit` would, is the network
namespace that a machine of the lab has, and a shorter watchdog.
"""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from lab.machine import Machine
from lab.waiting import wait_until
from tests.guest.bridge import ROOT
from tests.guest.offices import GATE

OPT = Path("/opt/carnet")
UNITS = Path("/etc/systemd/system")
WATCHDOG_SECONDS = 3
_BOUND = {
    OPT / "python": Path(sys.base_prefix),
    OPT / "packages": Path(sysconfig.get_path("purelib")),
    OPT / "source": ROOT,
}
_COMMANDS = {
    "carnet-host": "host_agent",
    "carnet-target": "target_agent",
    "carnet-helper": "helper_agent",
}
_COMMAND = f"""#!/bin/sh
export PYTHONPATH={OPT}/source:{OPT}/packages LD_LIBRARY_PATH={OPT}/python/lib
exec {OPT}/python/bin/{{python}} -c 'from {{module}}.entry import main; main()' "$@"
"""
_ADDED = """[Service]
NetworkNamespacePath=/proc/{pid}/ns/net
"""


def run(*argv: str, check: bool = True) -> str:
    """Run a command of the guest's; return what it said on standard output."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"{argv}: {done.stdout}{done.stderr}{journal(argv[-1])}")
    return done.stdout


def journal(unit: str) -> str:
    """Return what the unit wrote, and what systemd has to say of it."""
    return run("journalctl", "--unit", unit, "--output=cat", "--no-pager", check=False)


def install_carnet() -> None:
    """Put interpreter, packages and commands below /opt, where the units see them."""
    run("mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/opt")
    for place, source in _BOUND.items():
        place.mkdir(parents=True)
        run("mount", "--bind", str(source), str(place))
    python = Path(sys.executable).resolve().name
    (OPT / "bin").mkdir()
    for name, module in _COMMANDS.items():
        command = OPT / "bin" / name
        command.write_text(_COMMAND.format(python=python, module=module))
        command.chmod(0o755)


class Unit:
    """One service, by what systemctl does with it and says of it."""

    def __init__(self, name: str, machine: Machine, config: Path, added: str = "") -> None:
        self.name, self.config = name, config
        self._command = str(OPT / "bin" / name)
        path = f"PATH={OPT / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
        run("env", path, self._command, "--config", str(config), "install-units")
        edited = UNITS / f"{name}.service.d" / "lab.conf"
        edited.parent.mkdir(exist_ok=True)
        edited.write_text(_ADDED.format(pid=machine.pid) + added)

    def own(self, *places: Path) -> None:
        """Give files to the service's user, as its operator is told to."""
        for place in places:
            run("chown", "-R", f"{self.name}:", str(place))

    def do(self, verb: str, *options: str) -> None:
        """Have systemctl do that; it waits for it to be done."""
        run("systemctl", verb, *options, self.name)

    def as_operator(self, *argv: str) -> str:
        """Run the agent's command as its operator should: as the service's user."""
        command = (self._command, "--config", str(self.config), *argv)
        return run("runuser", "-u", self.name, "--", *command)

    def says(self, *properties: str) -> list[str]:
        """Return what systemd says of it, in that order."""
        lines = run("systemctl", "show", self.name, *(f"--property={p}" for p in properties))
        said = dict(line.split("=", 1) for line in lines.splitlines())
        return [said[each] for each in properties]

    @property
    def pid(self) -> int:
        return int(self.says("MainPID")[0])

    def wait_for(self, states: Sequence[str], what: str, *properties: str) -> None:
        """Wait until systemd says that of these properties."""
        wait_until(lambda: self.says(*properties) == list(states), f"{self.name} {what}")

    def wait_for_line(self, text: str) -> None:
        """Wait until it has written that."""
        wait_until(lambda: text in journal(self.name), f"{self.name} to write {text}")


def start_strongswan(machine: Machine) -> None:
    """Start Debian's own unit of strongSwan, whose VICI socket is Target's, too."""
    conf = Path("/etc/strongswan.d/carnet.conf")
    conf.write_text("charon-systemd {\n  group = carnet-target\n}\n")
    # As its operator does for carnet-helper (docs/OPERATING.md).
    (conf.parent / "charon" / "resolve.conf").write_text("resolve {\n  load = no\n}\n")
    edited = UNITS / "strongswan.service.d" / "lab.conf"
    edited.parent.mkdir()
    edited.write_text(_ADDED.format(pid=machine.pid))
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "strongswan")


def take_over(machine: Machine, name: str) -> Path:
    """Copy what an agent of the lab has into the service's directories; return the configuration.

    Gate and block are left out: here they need iptables, and the units let nftables alone work.
    Its `etc` becomes /etc/NAME, its `var` and what is in its home /var/lib/NAME.
    """
    etc, state = Path("/etc") / name, Path("/var/lib") / name
    shutil.copytree(machine.directory / "etc", etc)
    etc.chmod(0o755)
    shutil.copytree(machine.directory / "var", state)
    tokens = machine.directory / ".local"
    if tokens.exists():
        shutil.copytree(tokens, state / ".local")
    for conf in state.rglob("softhsm2.conf"):
        conf.write_text(conf.read_text().replace(str(machine.directory), str(state)))
    (config,) = etc.glob("*.toml")
    config.write_text(
        config.read_text()
        .replace("../var", str(state))
        .replace(GATE, "")
        .replace("block = true", "block = false")
    )
    return config
