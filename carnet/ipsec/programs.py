"""Running programs of this machine: one that is missing, and a machine that starts none."""

import subprocess
from collections.abc import Sequence
from typing import Any

from carnet.errors import IPsecError

Done = subprocess.CompletedProcess[str]


def run(argv: Sequence[str], said: str = "", seconds: float | None = None) -> Done:
    """Run a program with this input, and return how it ended: that it fails is no error.

    Raises FileNotFoundError or PermissionError where there is none that may be run, and
    IPsecError where it has not ended after so many seconds, which ends it, or the machine
    starts no program at all, as at its limit of processes: that tells nothing of what was
    asked, and is never to be taken for an answer.
    """
    given: dict[str, Any] = {"input": said, "timeout": seconds}
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, **given)
    except subprocess.TimeoutExpired as error:
        raise IPsecError(f"{argv[0]} has no answer within {seconds:g} seconds.") from error
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        raise
    except OSError as error:
        raise cannot_start(argv[0], error) from error


def cannot_start(program: str, error: OSError) -> IPsecError:
    """Return the error of a machine that starts no program now."""
    return IPsecError(
        f"This machine cannot start {program} now ({error.strerror}); end other programs,"
        " and try again."
    )
