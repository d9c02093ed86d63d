"""Where the commands begin: before anything that takes its time is imported."""

import sys
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from carnet import VERSION

INTERRUPTED = 130


def enter(module: str, name: str) -> NoReturn:
    """Run the main() of a module; an interrupt while it is imported is one line, too.

    The version is told without an import of it: it is asked by scripts, often.
    """
    if sys.argv[1:] == ["--version"]:
        # Where the output takes nothing the command says so itself.
        with suppress(OSError):
            sys.stdout.write(f"{name}, version {VERSION}\n")
            sys.stdout.flush()
            sys.exit(0)
    try:
        import_module(module).main()
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted.\n")
        sys.exit(INTERRUPTED)
    finally:
        # As Python ends it would be killed by a signal, whatever it has done.
        from carnet.interruption import over  # noqa: PLC0415  the version needs none

        over()
    sys.exit(0)
