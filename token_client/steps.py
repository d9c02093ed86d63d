"""The ten steps as the traveller sees them, each with its time."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click
import msgspec

_WORDS = {
    1: "request signed on the token, and sealed",
    2: "Host opened it and verified the signature",
    3: "Host made the key pair invalid and passed you on",
    4: "Target authorized you",
    5: "Target made a fresh pre-shared key and its side of the tunnel",
    6: "the sealed session key returned to Host",
    7: "Host signed and sealed the answer",
    8: "answer delivered, opened and verified",
    9: "IPsec configured, IKE negotiated",
    10: "tunnel stands, the private key is destroyed",
}

_AUTHORIZED = 4
_RETURNED = 6
OPENING = 8
_LAST = 10
_TIMING = re.compile(r"(step[2-7]|target);dur=([0-9]{1,6}(?:\.[0-9]{1,3})?)(?:, |$)")


class Steps(msgspec.Struct):
    """Shows each step when it is over, and none that failed."""

    quiet: bool = False
    """Whether standard output is for the result alone."""
    milliseconds: dict[int, float] = msgspec.field(default_factory=dict)
    _told: dict[int, float] = msgspec.field(default_factory=dict)
    """What the last answer says of steps 2 to 7; shown once it has proved to be the Host's."""
    _delivery: float = 0.0
    """Milliseconds of the last answer's way here, as far as no step explains them."""

    @contextmanager
    def part(self, number: int) -> Iterator[None]:
        """Time a part of a step that is not over with it."""
        started = time.perf_counter()
        yield
        elapsed = (time.perf_counter() - started) * 1000
        self.milliseconds[number] = self.milliseconds.get(number, 0.0) + elapsed

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Time a step of this machine's own, or its last part, and show it."""
        with self.part(number):
            yield
        self._show(number)

    def opened(self, *, granted: bool) -> None:
        """Show what the answer told, now that it has proved to be the Host's (part OPENING).

        Where it is a refusal, Target's time is for saying no.
        """
        told = dict(self._told)
        words = _WORDS
        if not granted and _RETURNED in told:
            told[_AUTHORIZED] = told.pop(_RETURNED) + told.get(_AUTHORIZED, 0.0)
            words = _WORDS | {_AUTHORIZED: "Target refused"}
        for number in sorted(told):
            self.milliseconds[number] = told[number]
            self._show(number, words)
        self.milliseconds[OPENING] += self._delivery
        self._show(OPENING)

    def answered(self, timing: str, elapsed: float) -> None:
        """Take in what an answer's Server-Timing tells of steps 2 to 7.

        `elapsed` is in seconds, as this machine saw it. The header is anybody's who is
        on the way: it is shown, and nothing depends on it.
        """
        told = {name: float(value) for name, value in _TIMING.findall(timing[:512])}
        steps = {int(name[4:]): value for name, value in told.items() if name != "target"}
        if "target" in told:
            steps[6] = max(0.0, told["target"] - steps.get(4, 0) - steps.get(5, 0))
        self._told = steps
        self._delivery = max(0.0, elapsed * 1000 - sum(steps.values()))

    def note(self, sentence: str) -> None:
        """Tell of something on the way: where no steps are shown, beside the result."""
        if self.quiet:
            click.echo(sentence, err=True)
        else:
            click.echo(f"      {sentence}")

    def _show(self, number: int, words: Mapping[int, str] = _WORDS) -> None:
        if not self.quiet:
            said = f"{words[number]:62}"
            said = click.style(said, bold=True) if number == _LAST else said
            click.echo(f"  {number:2}  {said}{self.milliseconds[number]:8.1f} ms")
