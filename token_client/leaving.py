"""Taking leave of Target: it may have lost sight of this machine, and wait for its return."""

import time

from carnet.errors import IPsecError
from carnet.ipsec.spec import comes_back
from carnet.moments import format_moment
from carnet.objectives import Objective
from token_client.by_record import Ends
from token_client.record import Session


def take_leave(driver: Ends, name: str) -> bool | None:
    """Return whether Target has heard that a session ends; see Driver.take_leave().

    What fails keeps nothing from ending.
    """
    try:
        return driver.take_leave(name)
    except IPsecError:
        return False


def may_be_kept(session: Session, heard: bool | None, *, ask: bool = True) -> str | None:
    """Return what to say of a session that is over here and perhaps not at Target; else None.

    Host may have Target's word that it ended there, and is asked unless that is not to be waited
    for. Where Target did not answer a moment ago, it is asked but once.
    """
    waits = comes_back(Objective(session.objective_id), _IKE) and session.seconds_left(time.time())
    if heard or (session.stage.is_ended and not session.stage.is_unheard) or not waits:
        return None
    if ask and _is_known_to_have_ended(session, once=heard is False):
        return None
    return (
        f"Target {session.target} has not confirmed that the session is over, and may keep it"
        f" until {format_moment(session.expires)}; its operator can end it sooner."
    )


_IKE = 2
"""With IKEv1 no Target waits, but which it was is not remembered."""


def _is_known_to_have_ended(session: Session, *, once: bool) -> bool:
    from token_client.ending import why_ended  # noqa: PLC0415  seldom needed, and long to load

    return why_ended(session, once=once) is not None
