"""What strongSwan's plugin `counters` counts, one connection at a time; it need not be there."""

from contextlib import suppress

from vici import Session
from vici.exception import CommandException, SessionException

from carnet.ipsec.strongswan_parts import is_ours, tunnel_of
from carnet.ipsec.vici_link import text

_NOT_THERE = (CommandException, SessionException)


def rekeyings(session: Session) -> dict[str, int] | None:
    """Return how often CHILD_SAs were rekeyed, by tunnel; None where nobody counts.

    A tunnel that is not in it was not rekeyed.
    """
    try:
        counters = text(session.get_counters({"all": "yes"}))["counters"]
    except _NOT_THERE:
        return None
    counted: dict[str, int] = {}
    for part, events in counters.items():
        if is_ours(part):
            tunnel = tunnel_of(part)
            counted[tunnel] = counted.get(tunnel, 0) + int(events.get("child-rekey", 0))
    return counted


def forget(session: Session, part: str) -> None:
    """Have the daemon forget what it counted of a connection; it would keep that for ever."""
    with suppress(*_NOT_THERE):
        session.reset_counters({"name": part})
