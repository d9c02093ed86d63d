"""Carnet set up in a world: the officer's, the operators' and the traveller's commands.

Everything is done through the four commands, as people would; secrets go through pipes.
"""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from carnet.files import private_directory
from lab.charon import Charon, Lane
from lab.machine import Machine
from lab.network import HOST_ADDRESS, TARGET_ADDRESS, VIRTUAL_NETWORK, WORK_NETWORK
from lab.process import Process
from lab.world import World

USER = "alice@office"
HOST_PORT = 8470
TARGET_PORT = 8471
HOST_URL = f"http://{HOST_ADDRESS}:{HOST_PORT}"
TRANSPORT_KEY = "host-transport.pem"
HOST_KEYS = "host-keys.pem"
"""Files of the officer's, as she got them from the Host's operator."""
_PLUG = ".local/share/carnet/softhsm"
"""Where SoftHSM2's tokens are, below a home directory."""
_PACKED = "office.json"


@dataclass(frozen=True)
class Secrets:
    """What people know by heart; made anew for each world, to be searched for afterwards."""

    pin: str = field(default_factory=lambda: secrets.token_hex(8))
    so_pin: str = field(default_factory=lambda: secrets.token_hex(8))
    hsm_pin: str = field(default_factory=lambda: secrets.token_hex(8))
    hsm_so_pin: str = field(default_factory=lambda: secrets.token_hex(8))
    passphrase: str = field(default_factory=lambda: secrets.token_hex(12))


class Office:
    """One officer, one Host, one Target and one traveller, in a world of their own."""

    def __init__(self, world: World, lane: Lane) -> None:
        self.world = world
        self.secrets = Secrets()
        self.client_charon = Charon(world.client, lane)
        self.target_charon = Charon(world.target, lane)
        self.batch = world.officer.directory / "alice.batch"

    def command(
        self,
        machine: Machine,
        *argv: str,
        given: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
        check: bool = True,
        seconds: float = 90,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on a machine; `given` are secrets by option, such as "pin"."""
        with pipes(given or {}) as (options, fds):
            return machine.run(
                [*argv, *options], pass_fds=fds, extra=extra, check=check, seconds=seconds
            )

    def facts(self, machine: Machine, *argv: str, given: Mapping[str, str] | None = None) -> Any:
        """Run a command with --json and return what it prints."""
        return json.loads(self.command(machine, *argv, "--json", given=given).stdout)

    def plug_in(self, machine: Machine) -> None:
        """Put the traveller's token into a machine."""
        plug = machine.directory / _PLUG
        private_directory(plug.parent)
        plug.symlink_to(self.world.token)

    def pull_out(self, machine: Machine) -> None:
        """Take the traveller's token out of a machine."""
        (machine.directory / _PLUG).unlink()

    def initialise_tokens(self) -> None:
        """Initialise the traveller's token at the officer's station, and the Host's HSM token."""
        known = self.secrets
        self.plug_in(self.world.officer)
        for machine, label, pin, so_pin in (
            (self.world.officer, "alice", known.pin, known.so_pin),
            (self.world.host, "hsm", known.hsm_pin, known.hsm_so_pin),
        ):
            self.command(
                machine, "carnet-provision", "token-init", "--label", label,
                given={"pin": pin, "so-pin": so_pin},
            )  # fmt: skip

    def certify(self) -> None:
        """Make the officer's key, and the certificates of the Host-Target link."""
        officer, known = self.world.officer, {"passphrase": self.secrets.passphrase}
        self.make_officer()
        for role, name, machine in (
            ("host", "office", self.world.host),
            ("target", "work", self.world.target),
        ):
            out = officer.directory / f"{role}-link"
            self.command(
                officer, "carnet-provision", "certificates", role, name, "--out", str(out),
                given=known,
            )  # fmt: skip
            shutil.copytree(out, machine.directory / "etc")

    def make_officer(self) -> None:
        """Make the officer's key and certificate."""
        known = {"passphrase": self.secrets.passphrase}
        self.command(self.world.officer, "carnet-provision", "init", given=known)

    def configure(self) -> None:
        """Write the configuration files of Host and Target, and fetch the transport key."""
        world = self.world
        target_url = f"https://{TARGET_ADDRESS}:{TARGET_PORT}"
        self.host("init", "--name", "office", "--target", "work", target_url)
        self.target(
            "init", "--name", "work", "--address", TARGET_ADDRESS,
            "--network", WORK_NETWORK, "--virtual-addresses", VIRTUAL_NETWORK,
        )  # fmt: skip
        for machine, name in ((world.host, "host"), (world.target, "target")):
            path = machine.directory / "etc" / f"{name}.toml"
            text = path.read_text().replace(f"/var/lib/carnet-{name}", "../var")
            path.write_text(text)
        done = self.host("transport-key", given=self.hsm_pin)
        (world.officer.directory / TRANSPORT_KEY).write_text(done.stdout)

    def fetch_host_keys(self, *options: str) -> None:
        """Have the Host's long-term keys made, and bring them to the officer."""
        done = self.host("host-keys", *options, given=self.hsm_pin)
        (self.world.officer.directory / HOST_KEYS).write_text(done.stdout)

    def mint(self, count: int, **changes: str) -> Any:
        """Mint key pairs for alice; return the facts."""
        return self.facts(
            self.world.officer, *self.mint_command(count, **changes), given=self.officer_secrets
        )

    @property
    def officer_secrets(self) -> dict[str, str]:
        """What the officer enters when she mints."""
        return {"passphrase": self.secrets.passphrase, "pin": self.secrets.pin}

    @property
    def hsm_pin(self) -> dict[str, str]:
        """What the Host's operator enters."""
        return {"pin": self.secrets.hsm_pin}

    def mint_command(self, count: int, **changes: str) -> list[str]:
        """Return the officer's command line for minting, secrets not in it."""
        directory = self.world.officer.directory
        split = changes.get("custody") == "split"
        host_key = ("--host-keys", HOST_KEYS) if split else ("--host-transport-key", TRANSPORT_KEY)
        options = {
            "--user": USER,
            "--count": str(count),
            host_key[0]: str(directory / host_key[1]),
            "--host-url": HOST_URL,
            "--target": "work",
            "--out": str(self.batch),
        } | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
        return ["carnet-provision", "mint", *(part for pair in options.items() for part in pair)]

    def carry_over(self) -> None:
        """Carry the batch to the Host, and the token to the traveller."""
        shutil.copy(self.batch, self.world.host.directory / "alice.batch")
        self.pull_out(self.world.officer)
        self.plug_in(self.world.client)

    def import_batch(self) -> Any:
        """Take the batch in at the Host; return the facts."""
        batch = str(self.world.host.directory / "alice.batch")
        argv = [*self._host_argv(), "import", batch]
        return self.facts(self.world.host, *argv, given=self.hsm_pin)

    def admit(self, *, lifetime: str = "8h", network: str = WORK_NETWORK) -> None:
        """Let alice have an ESP tunnel to the work network."""
        self.target(
            "users", "add", USER, "--objective", "esp", "--network", network,
            "--lifetime", lifetime,
        )  # fmt: skip

    def set_up(self, count: int = 3) -> None:
        """Do all that comes before the first connection, agents and daemons included."""
        self.initialise_tokens()
        self.certify()
        self.configure()
        self.mint(count)
        self.carry_over()
        self.import_batch()
        self.admit()

    def pack(self, directory: Path) -> None:
        """Put all that set_up() made, PINs included, into a directory."""
        shutil.copytree(self.world.directory, directory, symlinks=True)
        known = vars(self.secrets) | {"directory": str(self.world.directory)}
        (directory / _PACKED).write_text(json.dumps(known))

    def unpack(self, directory: Path) -> None:
        """Take over what another office packed, in the place of set_up()."""
        known = json.loads((directory / _PACKED).read_text())
        packed, here = known.pop("directory"), self.world.directory
        self.secrets = Secrets(**known)
        shutil.copytree(directory, here, symlinks=True, dirs_exist_ok=True)
        for conf in here.rglob("softhsm2.conf"):
            conf.write_text(conf.read_text().replace(packed, str(here)))
        self.pull_out(self.world.client)
        self.plug_in(self.world.client)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Run both charons and both agents."""
        with ExitStack() as stack:
            self.client_charon.start()
            stack.callback(self.client_charon.stop)
            self.target_charon.start()
            stack.callback(self.target_charon.stop)
            target = self.serve_target()
            stack.callback(target.stop)
            host = self.serve_host()
            stack.callback(host.stop)
            yield

    def serve_host(self, extra: Mapping[str, str] | None = None) -> Process:
        """Start the Host's agent and wait until it is ready."""
        argv = [*self._host_argv(), "serve"]
        with pipes(self.hsm_pin) as (options, fds):
            process = self.world.host.start(
                [*argv, *options], log="carnet-host.log", pass_fds=fds, extra=extra
            )
            process.wait_for_line('"event": "ready"')
        return process

    def serve_target(self, extra: Mapping[str, str] | None = None) -> Process:
        """Start the Target's agent and wait until it is ready."""
        argv = [*self._target_argv(), "serve"]
        process = self.world.target.start(argv, log="carnet-target.log", extra=extra)
        process.wait_for_line('"event": "ready"')
        return process

    def host(
        self, *argv: str, given: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run carnet-host at the Host."""
        return self.command(self.world.host, *self._host_argv(), *argv, given=given)

    def target(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        """Run carnet-target at Target."""
        return self.command(self.world.target, *self._target_argv(), *argv)

    def carnet(
        self,
        *argv: str,
        pin: str | None = None,
        extra: Mapping[str, str] | None = None,
        seconds: float = 90,
    ) -> "subprocess.CompletedProcess[str]":
        """Run the traveller's command; it may fail, the caller looks."""
        given = {"pin": pin or self.secrets.pin} if argv[0] == "connect" else None
        return self.command(
            self.world.client, "carnet", *argv,
            given=given, extra=extra, check=False, seconds=seconds,
        )  # fmt: skip

    def start_connect(self, *argv: str, extra: Mapping[str, str] | None = None) -> Process:
        """Start `carnet connect` and leave it running."""
        log = f"connect-{secrets.token_hex(4)}.log"
        with pipes({"pin": self.secrets.pin}) as (options, fds):
            return self.world.client.start(
                ["carnet", "connect", *argv, *options], log=log, pass_fds=fds, extra=extra
            )

    def listing(self, machine: Machine, pin: str) -> list[dict[str, Any]]:
        """Ask the token in a machine which private keys of one-time pairs it holds."""
        done = self.command(machine, "python", "-m", "lab.token_listing", given={"pin": pin})
        return list(json.loads(done.stdout))

    def pairs(self) -> list[dict[str, Any]]:
        """Return the Host's Key Database, pair by pair in the order of use, if there is one."""
        from host_agent.cli import cli  # noqa: PLC0415  long to load, and not for every office

        if not (self.world.host.directory / "var" / "keys.sqlite").exists():
            return []
        return _facts(cli, *self._host_argv()[1:], "keys", "--json")

    def tunnels(self) -> list[dict[str, Any]]:
        """Return the Target's records of tunnels, ended and refused ones included."""
        from target_agent.cli import cli  # noqa: PLC0415  see pairs()

        return _facts(cli, *self._target_argv()[1:], "tunnels", "list", "--all", "--json")

    def _host_argv(self) -> list[str]:
        return ["carnet-host", "--config", str(self.world.host.directory / "etc" / "host.toml")]

    def _target_argv(self) -> list[str]:
        config = self.world.target.directory / "etc" / "target.toml"
        return ["carnet-target", "--config", str(config)]


def _facts(command: click.Command, *argv: str) -> list[dict[str, Any]]:
    """Run a command that only reads a database in this process: it is asked for often."""
    done = CliRunner().invoke(command, argv, catch_exceptions=False, standalone_mode=False)
    return list(json.loads(done.stdout))


@contextmanager
def pipes(given: Mapping[str, str]) -> Iterator[tuple[list[str], Sequence[int]]]:
    """Give each secret through a pipe; yield the options that name them, and the descriptors."""
    options: list[str] = []
    fds: list[int] = []
    try:
        for name, secret in given.items():
            reading, writing = os.pipe()
            fds.append(reading)
            with os.fdopen(writing, "w") as pipe:
                pipe.write(secret + "\n")
            options += [f"--{name}-fd", str(reading)]
        yield options, fds
    finally:
        for fd in fds:
            os.close(fd)


def files_below(directory: Path) -> Iterator[Path]:
    """Yield every file that a run wrote."""
    return (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
