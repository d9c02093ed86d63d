"""Pages of memory in a guest kernel, where each is dear: to be had by the thousand, not singly.

User-mode Linux keeps a process of its own for each in the guest, with one mapping for all pages
that follow each other in the guest's memory, too. Pages that came one by one are a mapping each,
and whatever forks or starts a program copies them all: settle() has them together. A page that
is written to after a fork, or read from a library first, takes as long as five system calls; a
range is had at once for a few: so a Footprint knows what the last commands took.
"""

import ctypes
import mmap
import os
import re
import signal
import sys
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_READ, _WRITE, _EXECUTE = 1, 2, 4
"""PROT_READ, PROT_WRITE and PROT_EXEC of mprotect(2)."""
_POPULATE_READ, _POPULATE_WRITE = 22, 23
"""MADV_POPULATE_READ and MADV_POPULATE_WRITE of madvise(2)."""
_PR_SET_PDEATHSIG = 1
_PRESENT, _OURS_ALONE = 1 << 63, 1 << 56
"""Of an entry of /proc/PID/pagemap; of ours alone is what was written to since the fork."""
_ENTRY = 8

_libc = ctypes.CDLL(None)
for _call in (_libc.madvise, _libc.mprotect):
    _call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


@dataclass(frozen=True)
class _Area:
    """A private mapping of this process."""

    start: int
    pages: int
    protection: int

    @property
    def writable(self) -> bool:
        return bool(self.protection & _WRITE)

    def populate(self, first: int, pages: int) -> None:
        """Have these pages of it, in the guest kernel's own books."""
        how = _POPULATE_WRITE if self.writable else _POPULATE_READ
        # Where that fails they come one by one, as ever.
        _libc.madvise(self.start + first * mmap.PAGESIZE, pages * mmap.PAGESIZE, how)

    def map_populated(self) -> None:
        """Have the kernel map what it knows of: it does so for a range whose protection changes.

        What code is in stays executable, and what is written to writable.
        """
        added = _WRITE if not self.writable and self.protection & _EXECUTE else _EXECUTE
        for protection in (self.protection ^ added, self.protection):
            _libc.mprotect(self.start, self.pages * mmap.PAGESIZE, protection)


_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (r[w-][x-])p \S+ \S+ \S+ *(\S*)")


def _areas() -> list[_Area]:
    return list(_found(Path("/proc/self/maps").read_text()))


def _found(maps: str) -> Iterator[_Area]:
    for start, end, words, name in _MAPPING.findall(maps):
        if name not in ("[vdso]", "[vvar]", "[vsyscall]"):
            protection = sum(
                bit
                for bit, word in zip((_READ, _WRITE, _EXECUTE), words, strict=True)
                if word != "-"
            )
            first = int(start, 16)
            yield _Area(first, (int(end, 16) - first) // mmap.PAGESIZE, protection)


def settle() -> None:
    """Go on as a child of this process, with all memory anew and together.

    This process waits for the child's end, and ends with its status; the child ends with it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(status if status >= 0 else 128 - status)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for area in _areas():
        if area.writable:
            area.populate(0, area.pages)
            area.map_populated()


_ENOUGH = 4
_MARKED = re.compile(rb"\x01+(?:\x00{1,2}\x01+)*")
"""Pages that are taken together: what is between two is no dearer than a call."""


class Footprint:
    """Which pages commands of a kind have in the end that their template had not given them.

    Made in the template, and shared with the commands: whichever ends notes it for the next.
    """

    def __init__(self) -> None:
        self._areas = _areas()
        self._marks = mmap.mmap(-1, sum(area.pages for area in self._areas) or 1)
        self._noted = mmap.mmap(-1, 1)

    def follow(self) -> None:
        """In a command that begins: have these pages."""
        for area, marks in self._each():
            runs = [found.span() for found in _MARKED.finditer(marks)]
            for first, end in runs:
                area.populate(first, end - first)
            if runs:
                area.map_populated()

    def note(self) -> None:
        """In a command that ends: tell the next; the first few tell enough."""
        if self._noted[0] == _ENOUGH:
            return
        self._noted[0] += 1
        with suppress(OSError), Path("/proc/self/pagemap").open("rb", 0) as pagemap:
            at = 0
            for area, marks in self._each():
                pagemap.seek(area.start // mmap.PAGESIZE * _ENTRY)
                entries = array("Q", pagemap.read(area.pages * _ENTRY))
                wanted = _PRESENT | _OURS_ALONE if area.writable else _PRESENT
                now = bytes(entry & wanted == wanted for entry in entries)
                self._marks[at : at + area.pages] = bytes(map(max, marks, now))
                at += area.pages

    def _each(self) -> Iterator[tuple[_Area, bytes]]:
        at = 0
        for area in self._areas:
            yield area, self._marks[at : at + area.pages]
            at += area.pages
