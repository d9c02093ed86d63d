"""What is kept of a tunnel or a block, as it is written down, and as a former helper wrote it.

A helper that takes another's place, by an upgrade, finds tunnels that stand. What it cannot read
is somebody's all the same.
"""

from contextlib import suppress
from pathlib import Path

import msgspec

from carnet.files import write_private
from helper_agent.claims import Held, Holding, Leading

NOBODY = -1
"""The user id that no process has (setuid(2)): of what cannot be read."""

_ANY_PORT = 0


class _Former(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As it was written before a record told what each block lets through."""

    uid: int
    networks: frozenset[str]
    """All that was claimed, for a tunnel or a block."""
    installed: Leading | None = None
    block: str | None = None
    """What is `made_by` now."""
    held: frozenset[str] = frozenset()
    reaches: frozenset[str] = frozenset()
    """Addresses of Target and Hosts."""

    def holding(self) -> Holding:
        """Return the same, with a block for all of it; it may be that none of it is held back.

        What reaches them is not told: so nobody else's block lets all of it through.
        """
        hosts = frozenset((address, _ANY_PORT) for address in self.reaches)
        claimed = Held(self.networks | self.held, hosts=hosts)
        return Holding(self.uid, self.installed, (claimed, Held(frozenset())), self.block)


_UNREADABLE = Holding(NOBODY)


def write(path: Path, holding: Holding) -> None:
    """Write it down."""
    write_private(path, msgspec.json.encode(holding))


def read(path: Path) -> Holding | None:
    """Return what is written there; None if there is nothing, NOBODY's if it cannot be read."""
    try:
        written = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        return _UNREADABLE
    with suppress(msgspec.MsgspecError, ValueError):
        return msgspec.json.decode(written, type=Holding)
    with suppress(msgspec.MsgspecError, ValueError):
        return msgspec.json.decode(written, type=_Former).holding()
    return _UNREADABLE
