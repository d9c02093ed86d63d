"""Processes that run one action at a time, in whichever order a test chooses.

A process is a coroutine that pauses before every action. Whoever holds it lets it take
its next action, or kills it there: that is a crash at an action boundary.
"""

from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any

Condition = Callable[[], bool]


class until(Awaitable[None]):  # noqa: N801  reads as a word: await until(...)
    """Pause until a condition holds."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition

    def __await__(self) -> Generator[Condition, None, None]:
        yield self._condition


def pause() -> until:
    """Pause until the process is let go on."""
    return until(lambda: True)


@dataclass(eq=False)
class Process:
    """A coroutine at rest, and what it waits for."""

    party: str
    work: Coroutine[Condition, None, None]
    condition: Condition = lambda: True


class Processes:
    """All that runs, of all parties."""

    def __init__(self) -> None:
        self._running: list[Process] = []

    def start(self, party: str, work: Coroutine[Any, None, None]) -> None:
        """Begin with something; it takes its first action when it is let."""
        self._running.append(Process(party, work))

    def ready(self) -> list[Process]:
        """Return what could go on now, the longest waiting first."""
        return [process for process in self._running if process.condition()]

    def runs(self, party: str) -> bool:
        """Tell whether a party has work to do or to wait for."""
        return any(process.party == party for process in self._running)

    def go_on(self, process: Process) -> None:
        """Let one process take its next action."""
        try:
            process.condition = process.work.send(None)
        except StopIteration:
            self._running.remove(process)

    def kill(self, party: str) -> None:
        """Stop all of a party's processes where they stand."""
        for process in [each for each in self._running if each.party == party]:
            self._running.remove(process)
            process.work.close()


class Lock:
    """What one process holds and the others wait for."""

    def __init__(self, held: set[bytes], name: bytes) -> None:
        self._held = held
        self._name = name

    async def __aenter__(self) -> None:
        await until(lambda: self._name not in self._held)
        self._held.add(self._name)

    async def __aexit__(self, *_: object) -> None:
        self._held.discard(self._name)
