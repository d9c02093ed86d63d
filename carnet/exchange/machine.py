"""What the three state machines have in common.

Two rules, as in every file of this package:

1. A machine is its state and nothing else; what an agent must remember, it keeps.
2. Each row of a table says: in this state, on this event, the machine goes to that
   state, and the agent shall carry out these actions, in this order. An event
   without a row is a bug, and is refused loudly.

An agent feeds events and carries out actions; carrying out an action mostly yields
the next event. Nothing here opens a socket, reads a clock or touches a token.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

S = TypeVar("S", bound=StrEnum)


class Event(msgspec.Struct, frozen=True):
    """Something that happened: frozen facts.

    Not a dataclass, though it could be one: there are a hundred of these, and to make the
    class of one takes ten times as long, each time that a command starts.
    """


class Action(msgspec.Struct, frozen=True):
    """Something that the agent shall do: frozen, and with all that it needs."""


Actions = tuple[Action, ...]
Row = tuple[S, Callable[[Any], Actions]]
"""The next state, and what to do, made from the event that led there."""
Table = Mapping[tuple[S, type[Event]], Row[S]]


class ImpossibleEventError(Exception):
    """An event for which the table has no row: an agent's bug."""


class Machine(Generic[S]):
    """One run of one table."""

    def __init__(self, table: Table[S], state: S) -> None:
        self._table = table
        self.state = state

    def handle(self, event: Event) -> Actions:
        """Go to the next state and return what the agent shall do.

        Raises ImpossibleEventError and stays where it is if the table has no such row.
        """
        row = self._table.get((self.state, type(event)))
        if row is None:
            raise ImpossibleEventError(f"{type(event).__name__} in state {self.state}")
        self.state, act = row
        return act(event)


def run(machine: Machine[S], event: Event, perform: Callable[[Action], Event | None]) -> S:
    """Feed an event and all that follows from it; return the state it ends in."""
    waiting = deque([event])
    while waiting:
        for action in machine.handle(waiting.popleft()):
            follows = perform(action)
            if follows is not None:
                waiting.append(follows)
    return machine.state


async def run_async(
    machine: Machine[S], event: Event, perform: Callable[[Action], Awaitable[Event | None]]
) -> S:
    """Do what run() does, for an agent whose actions take their time."""
    waiting = deque([event])
    while waiting:
        for action in machine.handle(waiting.popleft()):
            follows = await perform(action)
            if follows is not None:
                waiting.append(follows)
    return machine.state


def nothing(_: Any) -> Actions:
    """Stand in a row that asks for no action."""
    return ()
