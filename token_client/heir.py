"""An agent in waiting, which begins as soon as the command that brings a tunnel up is gone.

That may be killed between any two steps, and its tunnel may come up all the same: so who is to
watch over it is there before there is a tunnel. It is a shell until then, to which the end of a
pipe tells that the command has ended, and it costs no more than an agent that is started later.
"""

import shlex
import subprocess
from contextlib import suppress

from token_client import background
from token_client.config import ClientConfig
from token_client.memory import memory_directory
from token_client.record import Session

_UNTIL_GONE = "read -r _ || exec {} </dev/null"
"""A line is read only where nobody is to begin."""


class Heir:
    """The agent of the tunnel that one command brings up, as far as the configuration wants one."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._waiting: subprocess.Popen[bytes] | None = None
        self._name = ""

    def stand_by(self, session: Session) -> None:
        """Have an agent wait for this process's end; where none can be had, begin() says so."""
        if self._name == session.name and self._is_there():
            return
        self.dismiss()
        if not self._config.agent or memory_directory() is None:
            return
        becomes = shlex.join(background.command_of(session.name))
        with suppress(OSError):
            self._waiting = subprocess.Popen(
                ["/bin/sh", "-c", _UNTIL_GONE.format(becomes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
            self._name = session.name

    def begin(self, session: Session) -> bool:
        """Have it begin now; as background.start()."""
        if self._name != session.name or not self._is_there():
            return background.start(session, self._config)
        self.take_over()
        return True

    def begin_if_it_can(self, session: Session) -> bool:
        """Have it begin now, as background.leave_to_agent()."""
        there = self._name == session.name and self._is_there()
        if there:
            return self.begin(session)
        return background.leave_to_agent(session, self._config)

    def take_over(self) -> None:
        """Have it begin now, if one waits: something is left to see to."""
        self._let_go(b"")

    def dismiss(self) -> None:
        """Have none begin, if one waits: nothing is left to watch over."""
        self._let_go(b"\n")

    def _is_there(self) -> bool:
        return self._waiting is not None and self._waiting.poll() is None

    def _let_go(self, word: bytes) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting.stdin is not None:
            with suppress(OSError), waiting.stdin as pipe:
                pipe.write(word)
