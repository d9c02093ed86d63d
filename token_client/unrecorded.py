"""Where tunnels lead, and blocks hold packets back, of which no record of this user tells.

They are other users', or one's own of which the record is damaged. Only whoever has the daemon
and the packet filter itself is told of them; for others `carnet-helper` looks.
"""

from collections.abc import Collection

import msgspec

from carnet.ipsec import block
from carnet.ipsec.driver import Telling
from carnet.ipsec.spec import NAME_PREFIX
from token_client.record import Session
from token_client.sessions import SessionStore


class Unrecorded(msgspec.Struct, frozen=True):
    """One of them."""

    inside: frozenset[str]
    """The networks to which it leads, or to which it holds packets back."""
    targets: frozenset[str]
    """Where its own packets go."""


def unrecorded(driver: object, store: SessionStore, but: Collection[str] = ()) -> list[Unrecorded]:
    """Return each, but for those of these names.

    None where nothing is recorded at all, for want of a file system in memory. Raises IPsecError.
    """
    if not store.records or not isinstance(driver, Telling):
        return []
    sessions = store.all()
    known = {each.name for each in sessions} | set(but)
    return _tunnels(driver, known) + _blocks(sessions, known)


def _tunnels(driver: Telling, known: Collection[str]) -> list[Unrecorded]:
    return [
        Unrecorded(lead.networks or lead.targets, lead.targets)
        for name, lead in driver.leads().items()
        if name.startswith(NAME_PREFIX) and name not in known
    ]


def _blocks(sessions: Collection[Session], known: Collection[str]) -> list[Unrecorded]:
    held_back = block.held_back(each.block for each in sessions)
    return [
        Unrecorded(each.networks, each.targets)
        for name, each in held_back.items()
        if name not in known
    ]
