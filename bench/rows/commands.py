"""How long the commands that people wait for take, next to an interpreter that does nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.bare_token import module_with_tokens_in
from bench.comparison import Aim, Row, in_turn
from bench.plan import Plan
from carnet.token.initialise import initialise_token
from softhsm.configuration import CONFIGURATION_VARIABLE
from tests.host.real_host import PIN, SO_PIN

_COMMANDS = Path(sys.executable).parent
_NOTHING, _CLICK = "python -c pass", "python -c 'import click'"
_FLOORS = {_NOTHING: "pass", _CLICK: "import click"}
_THREE, _SEEN = Aim("at most 3 times", most=3), Aim("none; to be seen")
_NO_DAEMON = 5
_MEASURED = (
    (("--version",), "", _NOTHING, _THREE, 0),
    (("--help",), "", _NOTHING, _THREE, 0),
    (("--help",), ", beside its library", _CLICK, _SEEN, 0),
    (("tokens",), ", one that is empty", _NOTHING, _SEEN, 0),
    (("status",), ", without a daemon to ask", _NOTHING, _SEEN, _NO_DAEMON),
)


def rows(plan: Plan) -> Iterator[Row]:
    """Measure `carnet` with each of them, whole processes, in milliseconds."""
    tokens = plan.place()
    initialise_token(module_with_tokens_in(tokens), label="alice", so_pin=SO_PIN, pin=PIN)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(plan.directory),
        CONFIGURATION_VARIABLE: os.environ[CONFIGURATION_VARIABLE],
        "PYTHONDONTWRITEBYTECODE": "",
    }
    for arguments, which, floor_name, aim, status in _MEASURED:
        interpreter = partial(python, _FLOORS[floor_name], environment)
        command = partial(
            milliseconds, [str(_COMMANDS / "carnet"), *arguments], environment, status=status
        )
        name = f"carnet {' '.join(arguments)}{which}"
        with plan.progress(name, plan.rounds(21) + 1) as advance:
            ours, floor = in_turn(command, interpreter, plan.rounds(21), advance)
        yield Row(
            group="Commands",
            name=name,
            floor_name=floor_name,
            unit="ms",
            aim=aim,
            ours=ours,
            floor=floor,
        )


def python(code: str, environment: Mapping[str, str]) -> float:
    """Return how long a Python takes for this code, in milliseconds."""
    return milliseconds([sys.executable, "-c", code], environment)


def milliseconds(argv: Sequence[str], environment: Mapping[str, str], *, status: int = 0) -> float:
    """Return how long a whole process takes; raises RuntimeError for another exit status."""
    started = time.perf_counter()
    done = subprocess.run(
        argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    taken = 1000 * (time.perf_counter() - started)
    if done.returncode != status:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}: {done.stderr.decode()}")
    return taken
