"""Several processes of one Host: `carnet-host serve`, as an operator starts it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from carnet.database.place import FilePlace
from host_agent.keydb import KeyDatabase
from lab.errors import LabError
from lab.office import pipes
from lab.process import Started
from lab.waiting import wait_until
from softhsm.configuration import CONFIGURATION_VARIABLE
from tests.commands import run, start
from tests.fleet.hsm import PIN
from tests.host.conftest import new_pair
from tests.target.conftest import free_port

_COMMAND = str(Path(sys.executable).parent / "carnet-host")
_READY = '"event": "ready"'

_CONFIGURATION = """
name = "office"
listen = "127.0.0.1"
port = {port}
directory = "."
officer = "authority.crt"
{database}
[token]
token = "hsm"
[link]
certificate = "office.crt"
key = "office.key"
authority = "authority.crt"
[limits]
per_address = "100000/second"
hsm = "100000/second"
connections = 4096
connections_per_address = 4096
[targets.work]
url = "https://127.0.0.1:{target}"
"""


class HostProcess:
    """One process of the Host, on a port of its own."""

    def __init__(self, fleet: "Fleet", number: int) -> None:
        self._fleet = fleet
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1/requests"
        self._environment = fleet.environment_of(number)
        self._configuration = fleet.directory / f"host-{number}.toml"
        self._configuration.touch(mode=0o600)
        self._configuration.write_text(fleet.configuration(self.port))
        self._log = fleet.directory / f"host-{number}.log"
        self._already = 0
        self._process: Started | None = None

    def start(self, **extra: str) -> None:
        self.begin(**extra)
        self.wait_until_ready()

    def begin(self, **extra: str) -> None:
        self._log.touch()
        self._already = self._log.read_text().count(_READY)
        with pipes({"pin": self._fleet.pin}) as (options, fds), self._log.open("ab") as log:
            self._process = start(
                [*self._argv("serve"), *options], self._environment | extra, log, pass_fds=fds
            )

    def wait_until_ready(self) -> None:
        wait_until(self._is_ready, "carnet-host to be ready", 120)

    def _is_ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise LabError(f"carnet-host does not start: {self._log.read_text()}")
        return self._log.read_text().count(_READY) > self._already

    def run(self, *argv: str) -> str:
        """Run another `carnet-host` command with this configuration; return what it prints."""
        done = self._run(*argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run_with_pin(self, *argv: str, before=()) -> "subprocess.CompletedProcess[str]":
        """Run a command that needs the HSM; it may fail, the caller looks."""
        with pipes({"pin": self._fleet.pin}) as (options, fds):
            return self._run(*argv, *options, before=before, pass_fds=fds)

    def run_dying(self, place: str, *argv: str) -> "subprocess.CompletedProcess[str]":
        """Run another command that is killed there."""
        return run(self._argv(*argv), self._environment | {"CARNET_CRASH_AT": place})

    def _run(self, *argv: str, before=(), pass_fds=()) -> "subprocess.CompletedProcess[str]":
        return run(self._argv(*argv), self._environment, before=before, pass_fds=pass_fds)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait until it ends by itself; return its exit status."""
        assert self._process is not None
        status = self._process.wait(60)
        self._process = None
        return status

    def stop(self) -> None:
        if self._process is not None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            assert self.wait() == 0

    def log(self) -> str:
        return self._log.read_text()

    def _argv(self, *argv: str) -> list[str]:
        return [_COMMAND, "--config", str(self._configuration), *argv]


class Fleet:
    """The processes, their Key Database and their token; a context manager."""

    pin = PIN

    def __init__(self, directory, place, authority, token, gateway) -> None:
        self.directory = authority.directory
        self.place = place
        self.gateway = gateway
        self.token = token
        authority.issue("office", "office")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            CONFIGURATION_VARIABLE: token.configuration,
        }
        self.processes: list[HostProcess] = []

    def environment_of(self, number: int) -> dict[str, str]:
        """What the process of that number has in its environment: all the same token."""
        return self.environment

    def configuration(self, port: int) -> str:
        place = self.place
        if isinstance(place, FilePlace):
            database = f'database = "{place.path}"'
        else:
            url = place.url.render_as_string(hide_password=False)
            database = f'database = "{url}"\ndatabase_password_file = "{place.password_file}"'
        return _CONFIGURATION.format(port=port, database=database, target=self.gateway.port)

    def import_keys(self, keys) -> None:
        """Bring pairs onto the token and into the Key Database."""
        self.token.store(keys)
        with KeyDatabase.opened(self.place) as database:
            for number, key in enumerate(keys):
                database.add_pairs([new_pair(key, label=f"carnet 20261123T000000Z {number:04}")])

    def start(self, count: int, **extra: str) -> list[HostProcess]:
        """Start so many; `extra` is what the first has in its environment."""
        for process in self.begin(count, **extra):
            process.wait_until_ready()
        return self.processes

    def begin(self, count: int, **extra: str) -> list[HostProcess]:
        """Do as start(), and wait for none of them: they may die before they are ready."""
        self.processes = [HostProcess(self, number) for number in range(count)]
        for process in self.processes:
            process.begin(**(extra if process is self.processes[0] else {}))
        return self.processes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.stop()
