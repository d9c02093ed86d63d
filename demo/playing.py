"""Plays the demonstration, and sees to it that nothing is left of it."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from carnet import interruption
from demo import stage
from demo.kept import keep_logs
from demo.proofs import Proofs
from demo.scenes import Demonstration
from lab.capture import Capture
from lab.charon import choose_lane
from lab.errors import LabError
from lab.office import Office
from lab.world import World

_LOGS = Path("demo-logs")
_INTERRUPTED = 130


def main() -> NoReturn:
    """Play the demonstration; the exit status is 0 only if every claim of the table holds."""
    interruption.listen()
    try:
        sys.exit(_tell_how_it_ends())
    except BrokenPipeError:
        # Nobody reads on, as behind `head`: what a program dies of that cares for nothing.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.raise_signal(signal.SIGPIPE)
        raise


def _tell_how_it_ends() -> int:
    proofs, made = Proofs(), list[Path]()
    try:
        _play(proofs, made)
    except KeyboardInterrupt:
        left = ", ".join(map(str, _still_there(made))) or "nothing"
        stage.console.print(f"\nInterrupted; {left} is left behind.")
        return _INTERRUPTED
    except LabError as error:
        _see_nothing_left(proofs, made)
        stage.closing_table(proofs.all)
        stage.console.print(f"\n[bold red]The demonstration broke off:[/bold red] {error}")
        return 1
    _see_nothing_left(proofs, made)
    stage.closing_table(proofs.all)
    return 0 if proofs.hold else 1


def _still_there(made: list[Path]) -> list[Path]:
    return [path for path in made if path.exists()]


def _see_nothing_left(proofs: Proofs, made: list[Path]) -> None:
    if made:
        left = _still_there(made)
        proofs.see(
            "nothing is left behind",
            f"{len(made) - 1} machines and their directory: {len(left)} still there",
            holds=not left,
        )


def _play(proofs: Proofs, made: list[Path]) -> None:
    """Play all scenes in a world of their own; add to `made` what must be gone afterwards."""
    lane = choose_lane()
    with World() as world, _cleared_in_peace():
        made += [world.directory, *(Path(f"/proc/{each.pid}") for each in world.machines)]
        office = Office(world, lane)
        try:
            with Capture(world.router) as capture:
                Demonstration(office, capture, proofs).run(lane)
        finally:
            if os.environ.get("KEEP") == "1":
                keep_logs(world.directory, _LOGS)
                stage.tell(f"Logs and the capture are in {_LOGS}/.")


@contextmanager
def _cleared_in_peace() -> Iterator[None]:
    """Let every interrupt pass from the end of this on: what was made is to be taken away."""
    try:
        yield
    finally:
        interruption.over()
