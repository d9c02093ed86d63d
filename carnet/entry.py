"""Where the commands begin: before anything is imported that takes its time.

Nor does this module import anything, or those that only call it: an interrupt before
enter() runs is a traceback.
"""

import sys

from carnet import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

INTERRUPTED = 130
_AT_ONCE = 50_000
"""Objects to be made before Python looks for garbage among the new ones. By its own 700 it looks
a hundred times while a command is loaded, where there is none."""
_HELP_COLUMNS = 80
"""From so many on click's lines stay as they are."""
_LATER = frozenset({"ssl", *(f"pkcs11.util.{name}" for name in ("dh", "dsa", "ec", "rsa", "x509"))})
"""What libraries import, and most commands do not use. With python-pkcs11's helpers for encodings
comes asn1crypto; http.client has use for TLS only where a Host is named by https."""


def enter(module: str, name: str, help_module: str = "") -> "NoReturn":
    """Run the main() of a module; an interrupt while it is imported is one line, too.

    The version is told without an import of it: it is asked by scripts, often. So is the help,
    where a module has its TEXT.
    """
    try:
        if sys.argv[1:] == ["--version"] and _tell(f"{name}, version {VERSION}\n"):
            sys.exit(0)
        if sys.argv[1:] == ["--help"] and help_module and _tell_help(help_module):
            sys.exit(0)
        _run(module, name)
    except KeyboardInterrupt:
        _say_interrupted(name)
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _run(module: str, name: str) -> None:
    try:
        _load(module, name)
        sys.modules[module].main()
    finally:
        # As Python ends it would be killed by a signal, whatever it has done.
        from carnet.interruption import over  # noqa: PLC0415  the version needs none

        over()
        import gc  # noqa: PLC0415  likewise

        # Nor is it to look through all that was loaded as it ends: the system takes it back.
        gc.freeze()


def _load(module: str, name: str) -> None:
    """Import a module; an interrupt meanwhile ends the process, which has done nothing yet.

    One that is raised would now and then be lost: in a callback of the import system, or as
    an object is taken apart, Python prints what is raised, and goes on.
    """
    import os  # noqa: PLC0415  at the top an interrupt of these imports would be a traceback
    import signal  # noqa: PLC0415

    def end(*_: object) -> None:
        _say_interrupted(name)
        os._exit(INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        import_light(module)  # ignored, as by nohup
        return
    signal.signal(signal.SIGINT, end)
    try:
        import_light(module)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def import_light(module: str) -> None:
    """Import a module, and leave for later what is not needed for that."""
    import gc  # noqa: PLC0415  likewise at the top

    gc.set_threshold(_AT_ONCE)
    if _Later not in sys.meta_path:
        sys.meta_path.insert(0, _Later)
    __import__(module)


class _Later:
    """Finds modules that are loaded as soon as somebody uses them, not when they are imported."""

    @staticmethod
    def find_spec(name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        """Return how a module is loaded; None for one that is loaded as ever."""
        if name not in _LATER:
            return None
        from importlib.machinery import PathFinder  # noqa: PLC0415  the version needs none
        from importlib.util import LazyLoader  # noqa: PLC0415

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def _say_interrupted(name: str) -> None:
    """Say it where anybody hears it; what does not, changes nothing of the exit status."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"{name}: interrupted.\n")
            sys.stderr.flush()
    except OSError:
        pass


def _tell_help(module: str) -> bool:
    """Tell the help as click has it; False where click would have it in other lines, or no help."""
    import os  # noqa: PLC0415  the version needs none

    if any(name == "COLUMNS" or name.endswith("_COMPLETE") for name in os.environ):
        return False
    try:
        if os.get_terminal_size(1).columns < _HELP_COLUMNS:
            return False
    except OSError:
        pass  # no terminal: click takes it for one of 80 columns
    __import__(module)
    return _tell(sys.modules[module].TEXT)


def _tell(text: str) -> bool:
    """Tell it; False where the output takes nothing, which the command says itself."""
    if sys.stdout is None:
        return False
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        return False
    return True
