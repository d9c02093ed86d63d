"""The ten steps as the traveller sees them, each with its time."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import click

_WORDS = {
    1: "request signed on the token, sealed to the key pair",
    2: "Host opened it and verified the signature",
    3: "Host made the key pair invalid and passed you on",
    4: "Target authorized you",
    5: "Target made a fresh pre-shared key and its side of the tunnel",
    6: "the sealed session key returned to Host",
    7: "Host signed and sealed the answer",
    8: "answer delivered, opened and verified on the token",
    9: "IPsec configured, IKE negotiated",
    10: "tunnel stands, the private key is destroyed",
}

_LAST = 10
_TIMING = re.compile(r"(step[2-7]|target);dur=([0-9]{1,6}(?:\.[0-9]{1,3})?)(?:, |$)")


@dataclass
class Steps:
    """Shows each step when it is over; what Host and Target did is told by Host."""

    quiet: bool = False
    milliseconds: dict[int, float] = field(default_factory=dict)
    _open: int = 0
    """The step whose line is not shown yet, since more of it may come."""

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Time a step of this machine's own; a step may have several parts."""
        started = time.perf_counter()
        yield
        self._add(number, (time.perf_counter() - started) * 1000)

    def remote(self, timing: str, elapsed: float) -> None:
        """Take in steps 2 to 7 from Host's Server-Timing, and the delivery as part of step 8.

        `elapsed` is in seconds, as this machine saw it. The header is anybody's who is
        on the way: it is shown, and nothing depends on it.
        """
        told = {name: float(value) for name, value in _TIMING.findall(timing[:512])}
        steps = {int(name[4:]): value for name, value in told.items() if name != "target"}
        if "target" in told:
            steps[6] = max(0.0, told["target"] - steps.get(4, 0) - steps.get(5, 0))
        for number in sorted(steps):
            self._add(number, steps[number])
        self._add(8, max(0.0, elapsed * 1000 - sum(steps.values())))

    def note(self, sentence: str) -> None:
        """Tell of something on the way."""
        if not self.quiet:
            self.finish()
            click.echo(f"      {sentence}")

    def finish(self) -> None:
        """Show the step that is still open."""
        if self._open and not self.quiet:
            words = click.style(f"{_WORDS[self._open]:62}", bold=self._open == _LAST)
            click.echo(f"  {self._open:2}  {words}{self.milliseconds[self._open]:8.1f} ms")
        self._open = 0

    def _add(self, number: int, milliseconds: float) -> None:
        if number != self._open:
            self.finish()
        self._open = number
        self.milliseconds[number] = self.milliseconds.get(number, 0.0) + milliseconds
