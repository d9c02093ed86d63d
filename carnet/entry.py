"""Where the commands begin: before anything that takes its time is imported."""

import sys
from importlib import import_module
from typing import NoReturn

INTERRUPTED = 130


def enter(module: str, name: str) -> NoReturn:
    """Run the main() of a module; an interrupt while it is imported is one line, too."""
    try:
        import_module(module).main()
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted.\n")
        sys.exit(INTERRUPTED)
    sys.exit(0)
