"""Leaving no holes in the heap, for a process that is forked from.

A child that is given memory from between what its parent has there writes to one page of the
parent's here and another there, and each of them is copied first: a quarter of all pages that a
command has, in a guest kernel a tenth of a second. What fills the holes stays for good.
"""

import ctypes
import os
import re
import sys
from collections.abc import Iterator

_LARGEST = 1 << 16
"""Less than what malloc(3) takes elsewhere than from the heap."""
_SMALLEST = 24
_STEP = 16
"""How malloc(3) rounds."""
_FROM_SMALL_ON = 1 << 10
_HEAD = 33
"""What an object of bytes takes beside its content."""

_STDERR = 2
_POOLS = re.compile(r"^ *\d+ +(?P<size>\d+) +\d+ +\d+ +(?P<free>\d+)$", re.MULTILINE)
"""A line of sys._debugmallocstats()."""


class _Mallinfo(ctypes.Structure):
    """What mallinfo2(3) returns."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


_libc = ctypes.CDLL(None)
_libc.mallinfo2.restype = _Mallinfo
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = (ctypes.c_size_t,)

_kept: list[bytes] = []


def fill_holes() -> None:
    """Have what is allocated from now on lie together, behind all that is there."""
    for size, free in _free_of_python():
        _kept.extend(bytes(size - _HEAD) for _ in range(free))
    size = _LARGEST
    while size >= _SMALLEST:
        while _is_from_a_hole(size):
            pass
        size = size * 3 // 4 if size > _FROM_SMALL_ON else size - _STEP


def _is_from_a_hole(size: int) -> bool:
    """Allocate so much, for good; return whether that left the heap's end as it was.

    Where there is no more memory to be had, nothing was.
    """
    before = _libc.mallinfo2().keepcost
    return bool(_libc.malloc(size)) and bool(_libc.mallinfo2().keepcost == before)


def _free_of_python() -> Iterator[tuple[int, int]]:
    """Yield of each size that Python has blocks of in pools, and bytes fit, how many are free."""
    for line in _POOLS.finditer(_told_of_pools()):
        size = int(line["size"])
        if size > _HEAD:
            yield size, int(line["free"])


def _told_of_pools() -> str:
    """Return what sys._debugmallocstats() writes to standard error, to nothing else."""
    with os.fdopen(os.memfd_create("pools"), "r+") as file:
        own = os.dup(_STDERR)
        os.dup2(file.fileno(), _STDERR)
        try:
            sys._debugmallocstats()  # noqa: SLF001
        finally:
            os.dup2(own, _STDERR)
            os.close(own)
        file.seek(0)
        return file.read()
