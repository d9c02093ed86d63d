"""How many SAs a tunnel may have: each takes the daemon's memory, and time to end.

No daemon has a limit of its own for a peer that has the tunnel's key.
"""

from carnet.errors import IPsecError

MOST_AT_ONCE = 3
"""IKE_SAs of one connection: two while it is rekeyed, and one that its peer has left behind."""

MOST_CHILDREN = 16
"""CHILD_SAs of a tunnel: AH and ESP have two, with a few that were rekeyed. Of about a thousand
strongSwan lists nothing any more, nor of the IKE_SA that has them."""


def refuse_more(ike_sas: int, child_sas: int) -> None:
    """See that a tunnel has no more of either than it may. Raises IPsecError."""
    for count, most, what in (
        (ike_sas, MOST_AT_ONCE, "IKE_SAs"),
        (child_sas, MOST_CHILDREN, "CHILD_SAs"),
    ):
        if count > most:
            raise IPsecError(
                f"The tunnel has {count} {what} at once, where {most} are the most that it may"
                " have, so it was ended; ask its user what negotiates there."
            )
