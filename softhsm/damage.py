"""Files of a SoftHSM2 token that SoftHSM2 cannot read, as a kill or a power cut leaves them.

It passes them over without a word, and offers no call that would remove them. A file is
a generation number and attributes: type, kind and value, each number 8 bytes wide
(SoftHSMv2, src/lib/object_store/ObjectFile.cpp). Its own softhsm2-dump-file says of no
file that it ends too early.
"""

from collections.abc import Callable
from pathlib import Path

from softhsm.places import directories_of

ABOUT_THE_TOKEN = "token.object"  # noqa: S105  a file's name
_NUMBER = 8
_SERIAL_NUMBER = 0x8000534A
"""CKA_OS_TOKENSERIAL (SoftHSMv2, src/lib/object_store/OSAttributes.h)."""
_VALUE_SIZES: dict[int, Callable[[int], int]] = {
    1: lambda _: 1,  # boolean
    2: lambda _: _NUMBER,  # unsigned long
    3: lambda number: _NUMBER + number,  # bytes, their number first
    4: lambda number: _NUMBER + number,  # attributes, the number of their bytes first
    5: lambda number: _NUMBER + _NUMBER * number,  # mechanisms, their number first
}
"""By kind: how many bytes a value has, given the number that it begins with."""
_BEYOND_MEMORY = 2**31
"""Bytes."""
_NAMED = 3
"""So many files are named in one sentence."""


def damaged_files(serial: str, visible: int) -> list[Path]:
    """Return the object files of the token of that serial number that cannot be read.

    `visible` is how many objects the token itself shows: where there are as many files,
    all are whole. The list is empty where the token is not SoftHSM2's.
    """
    files = (path for place in directories_of(serial) for path in place.glob("*.object"))
    paths = [path for path in files if path.name != ABOUT_THE_TOKEN]
    if len(paths) <= visible:
        return []
    return sorted(path for path in paths if _is_damaged(path))


def _is_damaged(path: Path) -> bool:
    try:
        return ends_too_early(path.read_bytes())
    except OSError:
        return False  # its object was destroyed meanwhile, or it is another user's


def what_is_damaged(serial: str) -> str | None:
    """Say which files of the token of that serial number cannot be read; None if all can.

    Without the PIN. What another program is just writing is looked at again, and was whole
    at one of the two looks.
    """
    first = set(damaged_files(serial, 0))
    paths = sorted(first.intersection(damaged_files(serial, 0))) if first else []
    if not paths:
        return None
    named = ", ".join(path.name for path in paths[:_NAMED])
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return (
        f"files in {paths[0].parent} are empty or cut short, as a full disk leaves them ({named}"
        f"{more}), and no object in them can be used; remove them when no program uses the token."
    )


def ends_too_early(data: bytes) -> bool:
    """Tell whether a file's content is empty or cut short."""
    end = _end(data)
    return end != len(data) or end == _NUMBER


def ends_the_process(data: bytes) -> bool:
    """Tell whether SoftHSM2 would end the process, without a word, that has it read a file.

    C_Initialize reads every object of every token. Where it finds no memory for as many
    bytes as a value is said to have, it calls exit(5).
    """
    return _end(data) >= _BEYOND_MEMORY


def serial_in(data: bytes) -> bytes:
    """Return the serial number in the content of a token's own file; nothing where it has none."""
    at = _NUMBER
    while at < len(data):
        value, end = at + 2 * _NUMBER, _after_attribute(data, at)
        if _number(data, at) == _SERIAL_NUMBER:
            return data[value + _NUMBER : end]
        at = end
    return b""


def _end(data: bytes) -> int:
    """Return where the last attribute ends by its own word."""
    at = _NUMBER
    while at < len(data):
        at = _after_attribute(data, at)
    return at


def _after_attribute(data: bytes, at: int) -> int:
    """Return where the next attribute begins, which may be behind the end."""
    value = at + 2 * _NUMBER
    size = _VALUE_SIZES.get(_number(data, at + _NUMBER))
    return value + size(_number(data, value)) if size else len(data) + 1


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + _NUMBER])
