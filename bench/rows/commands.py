"""How long the commands that people wait for take, next to an interpreter that does nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.comparison import Aim, Row, in_turn
from bench.plan import Plan
from softhsm.configuration import CONFIGURATION_VARIABLE, prepare

_COMMANDS = Path(sys.executable).parent
_NOTHING, _CLICK = "python -c pass", "python -c 'import click'"
_FLOORS = {_NOTHING: "pass", _CLICK: "import click"}
_THREE, _SEEN = Aim("at most 3 times", most=3), Aim("none; to be seen")
_MEASURED = (
    (("--version",), _NOTHING, _THREE),
    (("--help",), _NOTHING, _THREE),
    (("--help",), _CLICK, _SEEN),
    (("tokens",), _NOTHING, _SEEN),
    (("status",), _NOTHING, _SEEN),
)


def rows(plan: Plan) -> Iterator[Row]:
    """Measure `carnet` with each of them, whole processes, in milliseconds."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(plan.directory),
        CONFIGURATION_VARIABLE: str(prepare(plan.directory / "softhsm")),
        "PYTHONDONTWRITEBYTECODE": "",
    }
    for arguments, floor_name, aim in _MEASURED:
        interpreter = partial(python, _FLOORS[floor_name], environment)
        command = partial(
            milliseconds, [str(_COMMANDS / "carnet"), *arguments], environment, allowed=(0, 4, 5)
        )
        name = f"carnet {' '.join(arguments)}"
        with plan.progress(name, plan.rounds(21) + 1) as advance:
            ours, floor = in_turn(command, interpreter, plan.rounds(21), advance)
        yield Row(
            group="Commands",
            name=name if floor_name == _NOTHING else f"{name}, beside its library",
            floor_name=floor_name,
            unit="ms",
            aim=aim,
            ours=ours,
            floor=floor,
        )


def python(code: str, environment: Mapping[str, str]) -> float:
    """Return how long a Python takes for this code, in milliseconds."""
    return milliseconds([sys.executable, "-c", code], environment)


def milliseconds(
    argv: Sequence[str], environment: Mapping[str, str], *, allowed: Sequence[int] = (0,)
) -> float:
    """Return how long a whole process takes; raises RuntimeError if it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    taken = 1000 * (time.perf_counter() - started)
    if done.returncode not in allowed:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stderr.decode()}")
    return taken
