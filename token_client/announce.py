"""Telling the traveller something while no command of hers is in the foreground."""

import os
import shutil
import subprocess
import syslog
from contextlib import suppress

_SECONDS = 5.0
_WAYS = (("notify-send", "--app-name=carnet", "Carnet"), ("wall",))
"""What shows a sentence, the best first: on her desktop, or on the terminals."""


def announce(sentence: str) -> None:
    """Write a sentence to the system's log, and show it where this machine can show one."""
    write_down(sentence)
    for program, *arguments in _WAYS:
        if shutil.which(program) and _show([program, *arguments, sentence]):
            return


def write_down(text: str) -> None:
    """Write it to the system's log alone."""
    with suppress(OSError):
        syslog.openlog("carnet", syslog.LOG_PID, syslog.LOG_USER)
        syslog.syslog(syslog.LOG_NOTICE, text)


def _show(argv: list[str]) -> bool:
    """Run what shows it; False if it cannot, as without a desktop."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
            env=os.environ | {"LANG": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
