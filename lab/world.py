"""The lab as a whole: the machines of lab.network, linked, with their directories."""

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.errors import LabError
from lab.machine import Machine
from lab.network import (
    MACHINES,
    OWNERS,
    ROUTER_RULES,
    SETTINGS,
    address_commands,
    link_commands,
)
from lab.privilege import require_root
from lab.waiting import TIME_LIMIT

_JANITOR = 'cat; for attempt in 1 2 3 4 5; do rm -rf -- "$1" && exit; sleep 0.2; done; exit 1'
"""Waits until its maker ends, however that ends, and removes the directory."""


class World:
    """Six machines and a network between them; a context manager that leaves nothing behind.

    `directory` is private to the world and holds one directory for each machine,
    and `token` for the traveller's token, which officer and client both see.

    Raises LabError where a machine cannot be made.
    """

    def __init__(self) -> None:
        require_root()
        self.directory = Path(tempfile.mkdtemp(prefix="carnet-lab-"))
        self.token = self.directory / "token"
        self._janitor = subprocess.Popen(
            ["sh", "-c", _JANITOR, "janitor", str(self.directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._machines: dict[str, Machine] = {}
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        self.officer, self.client, self.router, self.host, self.target, self.server = (
            self._machines[name] for name in MACHINES
        )

    def _build(self) -> None:
        directories = {name: self.directory / name for name in OWNERS}
        for directory in directories.values():
            directory.mkdir(mode=0o700)
        for name in MACHINES:
            hidden = [d for other, d in directories.items() if name not in OWNERS[other]]
            self._machines[name] = Machine(name, directories[name], hidden)
        self._lay_cables()
        for machine in self._machines.values():
            machine.run(["ip", "-batch", "-"], stdin=address_commands(machine.name))
        for name, settings in SETTINGS.items():
            for setting, value in settings.items():
                self._machines[name].run(["tee", f"/proc/sys/{setting}"], stdin=value)
        self._machines["router"].run(["nft", "-f", "-"], stdin=ROUTER_RULES)

    def _lay_cables(self) -> None:
        """Make the veth pairs; from outside, where the machines' process ids mean something."""
        pids = {name: machine.pid for name, machine in self._machines.items()}
        done = subprocess.run(
            ["nsenter", f"--target={pids['router']}", "--net", "ip", "-batch", "-"],
            input=link_commands(pids),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LabError(f"The machines cannot be linked: {done.stderr.strip()}")

    @property
    def machines(self) -> tuple[Machine, ...]:
        """All machines of the world."""
        return tuple(self._machines.values())

    def close(self) -> None:
        """End every machine and remove the directory; return when all of it is gone."""
        for machine in self._machines.values():
            machine.close()
        if self._janitor.stdin:
            self._janitor.stdin.close()
        if self._janitor.wait(TIME_LIMIT):
            raise LabError(f"The lab's directory {self.directory} cannot be removed.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
