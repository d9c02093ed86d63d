"""Being served before all else that this computer does: what it takes then is its own time.

For what is promised to be done by the clock, and is to be seen while the computer has other
things to do: the kernel gives no processor to an ordinary process that one of these could use
(sched(7)). What they wait for they wait for as ever.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_URGENT = os.SCHED_RR, os.sched_param(1)
_ORDINARY = os.SCHED_OTHER, os.sched_param(0)
_PROC = Path("/proc")


@contextmanager
def urgent() -> Iterator[bool]:
    """Have this process and all that it began served first, and what these begin meanwhile.

    Yields whether they are: root of a user namespace alone may not have it so.
    """
    try:
        yield _all_are(_URGENT)
    finally:
        _all_are(_ORDINARY)


def _all_are(policy: tuple[int, os.sched_param]) -> bool:
    seen: set[int] = set()
    # What one begins before its turn is as it was: it is found by another look.
    while found := set(_threads(os.getpid())) - seen:
        try:
            for thread in found:
                with suppress(ProcessLookupError):
                    os.sched_setscheduler(thread, *policy)
        except PermissionError:
            return False
        seen |= found
    return True


def _threads(process: int) -> Iterator[int]:
    """Yield the threads of a process, and of all that it and its children began."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in (_PROC / str(process) / "task").iterdir():
            yield int(task.name)
            for child in (task / "children").read_text().split():
                yield from _threads(int(child))
