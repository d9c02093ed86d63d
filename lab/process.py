"""A process that runs in a machine of the lab."""

import os
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from lab.errors import LabError
from lab.template import Forked
from lab.waiting import TIME_LIMIT, wait_until

Started = subprocess.Popen[bytes] | Forked
"""What was started on a machine: nsenter, which waits for its program, or the program."""


def only_child(pid: int) -> int | None:
    """Return the id of that process's one child; None if it has none, or has ended."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(children[0]) if children else None


_LAST_CHARACTERS = 4000
"""Of a log, where what is waited for does not come."""


class Process:
    """A program in a machine, seen from outside.

    What was started is the program itself where it was forked (lab.template), and else
    nsenter, which only waits: signals go to the program. The program dies when nsenter
    dies, and both when the machine does.
    """

    def __init__(self, name: str, started: Started, log: Path | None, before: int = 0) -> None:
        self.name = name
        self.log = log
        self._before = before
        """How many bytes earlier programs wrote to the same log."""
        self._started = started
        wait_until(lambda: self._program() is not None or not self.running, f"{name} to start")
        self._pid = self._program()

    def _program(self) -> int | None:
        started = self._started
        return started.pid if isinstance(started, Forked) else only_child(started.pid)

    @property
    def running(self) -> bool:
        """Whether the program has not ended yet."""
        return self._started.poll() is None

    @property
    def pid(self) -> int:
        """The program's process id, as seen from outside the machine."""
        if self._pid is None:
            raise LabError(f"{self.name} ended at once. {self.output()}")
        return self._pid

    @property
    def stdout(self) -> IO[bytes] | None:
        """What the program prints, where it was started with a pipe."""
        return self._started.stdout

    @property
    def stdin(self) -> IO[bytes] | None:
        """What the program reads, where it was started with a pipe."""
        return self._started.stdin

    def output(self) -> str:
        """Return what the program wrote to its log so far."""
        if self.log is None:
            return ""
        return self.log.read_bytes()[self._before :].decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send the program a signal; one that has ended gets none."""
        if self.running and self._pid is not None:
            # It may have ended while nsenter has not.
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def freeze(self) -> None:
        """Stop the program where it is (SIGSTOP), until thaw()."""
        self.signal(signal.SIGSTOP)
        # nsenter does as its child does: one that is continued too early would stop later,
        # and then keep the machine from ending.
        wait_until(self.is_stopped, f"{self.name} to stop")

    def thaw(self) -> None:
        """Let the program go on; where there is nsenter, that continues it."""
        # What SIGKILL has ended meanwhile does not go on.
        with suppress(ProcessLookupError):
            os.kill(self._started.pid, signal.SIGCONT)

    def is_stopped(self) -> bool:
        """Whether the program stands still, and so does nsenter where there is one."""
        status = Path(f"/proc/{self._started.pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] == "T"

    def wait(self, seconds: float = TIME_LIMIT) -> int:
        """Return the exit status; raise LabError if the program is still running by then."""
        try:
            return self._started.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name} still runs after {seconds:g} seconds.") from error

    def stop(self, seconds: float = TIME_LIMIT) -> int:
        """Ask the program to end (SIGTERM) and return its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> int:
        """End the program at once (SIGKILL), as a crash would."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def wait_for(self, holds: Callable[[], bool], what: str, seconds: float = TIME_LIMIT) -> None:
        """Wait until it holds; raise LabError with the log where it does not, or ends before."""

        def holds_or_ended() -> bool:
            return holds() or not self.running

        try:
            wait_until(holds_or_ended, f"{what} of {self.name}", seconds)
        except LabError as error:
            raise LabError(f"{error} Its log ends: {self.output()[-_LAST_CHARACTERS:]}") from None
        if not holds():
            raise LabError(f"{self.name} ended before {what} was seen. {self.output()}")

    def wait_for_line(self, pattern: str, seconds: float = TIME_LIMIT) -> str:
        """Wait until the log has a line that matches the pattern, and return the line."""
        expression = re.compile(f"^.*(?:{pattern}).*$", re.MULTILINE)
        self.wait_for(
            lambda: bool(expression.search(self.output())), f"a line {pattern!r}", seconds
        )
        found = expression.search(self.output())
        return found.group() if found else ""
