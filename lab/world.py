"""The lab as a whole: the machines of lab.network, linked, with their directories."""

import subprocess
from types import TracebackType
from typing import Self

from lab.errors import LabError
from lab.machine import Machine
from lab.network import (
    HIDDEN,
    MACHINES,
    OWNERS,
    ROUTER_RULES,
    ROUTER_RULES_LEGACY,
    Plan,
    address_commands,
    link_commands,
    settings,
)
from lab.privilege import require_root
from lab.scratch import Scratch

_NFT_KNOWS_IP = "nft add table ip carnet_lab"


class World:
    """Six machines and a network between them; a context manager that leaves nothing behind.

    `directory` is private to the world and holds one directory for each machine,
    and `token` for the traveller's token, which officer and client both see.

    Raises LabError where a machine cannot be made.
    """

    def __init__(self, plan: Plan = HIDDEN) -> None:
        require_root()
        self.plan = plan
        self._scratch = Scratch("carnet-lab-")
        self.directory = self._scratch.directory
        self.token = self.directory / "token"
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
        for name, machine in self._machines.items():
            with machine.network():
                for path, value in settings(self.plan, name).items():
                    machine.path(f"/proc/sys/{path}").write_text(value)
                _ip(address_commands(self.plan, name))
        if self.plan.hides_client:
            self._hide_client(self._machines["router"])

    def _hide_client(self, router: Machine) -> None:
        """Put the client behind NAT, with whichever packet filter this kernel has."""
        if router.run(_NFT_KNOWS_IP.split(), check=False).returncode == 0:
            router.run(["nft", "-f", "-"], stdin=ROUTER_RULES)
        else:
            router.run(["iptables-legacy-restore"], stdin=ROUTER_RULES_LEGACY)

    def _lay_cables(self) -> None:
        """Make the veth pairs; from outside, where the machines' process ids mean something."""
        pids = {name: machine.pid for name, machine in self._machines.items()}
        with self._machines["router"].network():
            _ip(link_commands(self.plan, pids))

    @property
    def machines(self) -> tuple[Machine, ...]:
        """All machines of the world."""
        return tuple(self._machines.values())

    def close(self) -> None:
        """End every machine and remove the directory; return when all of it is gone."""
        for machine in self._machines.values():
            machine.close()
        self._scratch.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _ip(commands: str) -> None:
    """Have `ip` do that in this thread's network; raise LabError if it does not."""
    done = subprocess.run(
        ["ip", "-batch", "-"], input=commands, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LabError(f"The machines cannot be linked: {done.stderr.strip()}")
