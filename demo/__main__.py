"""`make demo`: the whole of Carnet at work on real parts, shown to a person.

Exit status 0 only if every claim of the closing table holds.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from demo import stage
from demo.proofs import Proofs
from demo.scenes import Demonstration, keep_logs
from lab.capture import Capture
from lab.charon import choose_lane
from lab.errors import LabError
from lab.office import Office
from lab.world import World

_LOGS = Path("demo-logs")
_INTERRUPTED = 130
_AGAIN_SECONDS = 0.05


def main() -> int:
    """Play the demonstration; return the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _interrupt)
    sys.unraisablehook = _interrupt_again
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
    with World() as world:
        made += [world.directory, *(Path(f"/proc/{each.pid}") for each in world.machines)]
        office = Office(world, lane)
        try:
            with Capture(world.router) as capture:
                Demonstration(office, capture, proofs).run(lane)
        finally:
            if os.environ.get("KEEP") == "1":
                keep_logs(office, _LOGS)
                stage.tell(f"Logs and the capture are in {_LOGS}/.")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _interrupt_again(ignored: "sys.UnraisableHookArgs") -> None:
    """Interrupt once more, a moment later, where Python had to ignore it.

    It does so in what it calls around a fork (os.register_at_fork), and in destructors.
    """
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(ignored)


if __name__ == "__main__":
    sys.exit(main())
