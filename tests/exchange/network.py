"""Everything that is on its way between the parties, and everybody who waits for a reply."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.exchange.processes import until


class Silence:
    """What a caller has in place of a reply when its time is up."""


class Rejection:
    """HTTP 403: the one answer that strangers get, and that anybody can send."""


class Later:
    """HTTP 503 or 429: send it again."""


@dataclass(eq=False)
class Call:
    """Somebody who waits for a reply; the first that comes counts."""

    caller: str
    reply: Any = None

    def answer(self, reply: Any) -> None:
        """Have the caller go on, unless it did already."""
        if self.reply is None:
            self.reply = reply


@dataclass(frozen=True, eq=False)
class Packet:
    """A message on its way; `deliver` is what happens when it arrives."""

    deliver: Callable[[], None]


class Network:
    """Loses, doubles, delays and reorders nothing by itself: a test does."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.is_cut = False
        """Whether nothing gets through until somebody mends it."""
        self._calls: list[Call] = []

    async def call(self, caller: str, send: Callable[[Call], None]) -> Any:
        """Send something and wait for what comes back, Silence included."""
        call = Call(caller)
        self._calls.append(call)
        self.post(lambda: send(call))
        await until(lambda: call.reply is not None)
        return call.reply

    def post(self, deliver: Callable[[], None]) -> None:
        """Put a message on its way."""
        if self.is_cut:
            return
        self.packets.append(Packet(deliver))

    def cut(self) -> None:
        """Lose what is on its way, and all that is sent from now on."""
        self.packets.clear()
        self.is_cut = True

    def reply(self, call: Call, reply: Any) -> None:
        """Put a reply on its way back."""
        self.post(lambda: call.answer(reply))

    def deliver(self, packet: Packet) -> None:
        """Let a message arrive."""
        self.packets.remove(packet)
        packet.deliver()

    def waiting(self, caller: str | None = None) -> list[Call]:
        """Return who still waits for a reply."""
        self._calls = [call for call in self._calls if call.reply is None]
        return [call for call in self._calls if caller in (None, call.caller)]

    def hang_up(self, caller: str) -> None:
        """Forget the calls of a party that is no more."""
        self._calls = [call for call in self._calls if call.caller != caller]
