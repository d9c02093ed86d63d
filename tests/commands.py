"""Commands that run beside the tests, on no machine of the lab: forked, where they may be."""

import os
import subprocess
from pathlib import Path

from lab.template import Place, template_for

_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


def start(argv, environment, log, pass_fds=()):
    """Start a command that stays, and ends with us; what it says goes to the log."""
    argv = [str(each) for each in argv]
    template = template_for(argv)
    if template is None:
        return subprocess.Popen(
            [*_DIES_WITH_US, *argv], env=environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, pass_fds=pass_fds,
        )  # fmt: skip
    with Path(os.devnull).open("rb") as nothing:
        stdio = [each.fileno() for each in (nothing, log, log)]
        return template.start(argv, Place(environment, Path.cwd()), stdio, pass_fds=pass_fds)


def run(argv, environment, *, before=(), pass_fds=()):
    """Run a command to its end; it may fail, the caller looks. `before` is what starts it."""
    argv = [str(each) for each in argv]
    template = None if before else template_for(argv)
    if template is None:
        return subprocess.run(
            [*before, *argv], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False, pass_fds=pass_fds,
        )  # fmt: skip
    return template.run(argv, Place(environment, Path.cwd()), pass_fds=pass_fds)
