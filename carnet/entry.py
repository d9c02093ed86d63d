"""Where the commands begin: before anything is imported that takes its time.

Nor does this module import anything, or those that only call it: an interrupt before
enter() runs is a traceback.
"""

import sys

from carnet import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED = 130


def enter(module: str, name: str) -> "NoReturn":
    """Run the main() of a module; an interrupt while it is imported is one line, too.

    The version is told without an import of it: it is asked by scripts, often.
    """
    if sys.argv[1:] == ["--version"] and _tell_version(name):
        sys.exit(0)
    try:
        __import__(module)
        sys.modules[module].main()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write(f"{name}: interrupted.\n")
        sys.exit(INTERRUPTED)
    finally:
        # As Python ends it would be killed by a signal, whatever it has done.
        from carnet.interruption import over  # noqa: PLC0415  the version needs none

        over()
    sys.exit(0)


def _tell_version(name: str) -> bool:
    """Tell the version; False where the output takes nothing, which the command says itself."""
    if sys.stdout is None:
        return False
    try:
        sys.stdout.write(f"{name}, version {VERSION}\n")
        sys.stdout.flush()
    except OSError:
        return False
    return True
