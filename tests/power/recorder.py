"""What a process asks of the file system and of the network, in order: a record by strace."""

import re
from dataclasses import dataclass
from pathlib import Path

_CALLS = (
    "openat,write,pwrite64,fsync,fdatasync,syncfs,ftruncate,lseek,rename,renameat,renameat2,"
    "unlink,unlinkat,mkdir,mkdirat,sendto,sendmsg,recvfrom,exit_group"
)
_LINE = re.compile(r"(\d+) +(.*)")
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)")
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)")
_FD = re.compile(r"(-?\d+|AT_FDCWD)<(.*?)>(?=,|$)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_HEX = re.compile(r"\\x([0-9a-f]{2})")


def recorded(argv, trace):
    """Return the command that runs `argv`, to which signals go, and writes the record."""
    return [
        "strace", "-D", "-f", "-yy", "-xx", "--seccomp-bpf", "-s", "16777216", "--signal=none",
        "-e", f"trace={_CALLS}", "-o", str(trace), "--", *argv,
    ]  # fmt: skip


@dataclass(frozen=True)
class Call:
    """One system call that succeeded; `begun` and `done` are places in the order of all."""

    begun: int
    done: int
    name: str
    fd: int
    of: str
    """The path or the socket that the descriptor is of."""
    texts: tuple[bytes, ...]
    arguments: str
    result: int


def read_record(trace: Path) -> list[Call]:
    """Return the calls in the order in which they ended."""
    calls, begun = [], {}
    for place, line in enumerate(trace.read_text(encoding="latin-1").splitlines()):
        thread, text = _LINE.match(line).groups()
        if text.endswith(_UNFINISHED):
            begun[thread] = (place, text.removesuffix(_UNFINISHED))
            continue
        start = place
        if resumed := _RESUMED.match(text):
            start, first = begun.pop(thread)
            text = first + resumed.group(1)
        match = _CALL.match(text)
        if match and int(match.group(3)) >= 0:
            calls.append(_call(start, place, *match.groups()))
    return calls


def _call(begun, done, name, arguments, result):
    fd = _FD.match(arguments)
    return Call(
        begun=begun,
        done=done,
        name=name,
        fd=int(fd.group(1)) if fd and fd.group(1) != "AT_FDCWD" else -1,
        of=_unhex(fd.group(2)).decode(errors="replace") if fd else "",
        texts=tuple(_unhex(each) for each in _TEXT.findall(arguments)),
        arguments=arguments,
        result=int(result),
    )


def _unhex(text):
    return _HEX.sub(lambda m: chr(int(m.group(1), 16)), text).encode("latin-1")
