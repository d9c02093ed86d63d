"""A daemon of one machine, which tests stop, kill and freeze, and start again."""

from lab.errors import LabError
from lab.machine import Machine
from lab.process import Process


class Daemon:
    """Started by start() of those that derive from it, as often as it was ended."""

    name: str
    """What it is called where it is missing."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """The daemon's process id, as seen from outside the machine."""
        if self._process is None:
            raise LabError(f"No {self.name} was started on {self.machine.name}.")
        return self._process.pid

    def stop(self) -> None:
        """End the daemon in good order: it tells its peers."""
        if self._process:
            self._process.stop()

    def kill(self) -> None:
        """End the daemon as a crash would."""
        if self._process:
            self._process.kill()

    def freeze(self) -> None:
        """Stop the daemon where it is, as a machine that falls asleep does, until thaw()."""
        if self._process:
            self._process.freeze()

    def thaw(self) -> None:
        """Let it go on."""
        if self._process:
            self._process.thaw()
