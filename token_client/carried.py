"""Tunnels that the kernel carries on without an IKE daemon that knows of them.

One that was killed leaves its SAs there. They serve until their keys are due to be renewed, for
which it takes that daemon.
"""

import shutil
from collections.abc import Collection, Iterable

from carnet.ipsec import xfrm
from carnet.ipsec.forsaken import kernel_has_ipsec
from carnet.objectives import Objective
from token_client.record import Session

_UNTIL = "until its keys are due to be renewed"
_NEW = "once the daemon is started again, `carnet connect` opens a new one"
_OUT = "`carnet disconnect --release` takes it out without the daemon"


def carried(sessions: Collection[Session]) -> frozenset[str] | None:
    """Return the names of those that are not ended and to whose Targets the kernel has SAs.

    By the addresses alone, so that another tunnel to the same Target counts; None where the
    kernel does not tell, which it does to root.
    """
    asked = [each for each in sessions if _may_have_sas(each)]
    if not asked:
        return frozenset()
    if shutil.which("ip") is None:
        return None
    if not kernel_has_ipsec():
        return frozenset()
    listed = xfrm.list_sas()
    if listed.returncode:
        return None
    found = xfrm.sas(listed.stdout.splitlines())
    carrying = [sa for sa in found if sa["reqid"] != "0" and xfrm.is_keyed(sa)]
    ends = {address for sa in carrying for address in (sa["src"], sa["dst"])}
    return frozenset(each.name for each in asked if not ends.isdisjoint(each.target_addresses))


def what_is_carried(sessions: Iterable[Session]) -> str | None:
    """Return, as half a sentence, what goes on of these while their daemon is gone, and what to do.

    None where nothing does.
    """
    asked = [each for each in sessions if _may_have_sas(each)]
    names = carried(asked)
    if names is None:
        return f"the kernel may carry each tunnel on without it {_UNTIL}; {_what_to_do(asked)}"
    on = [each for each in asked if each.name in names]
    targets = sorted({each.target for each in on})
    if not targets:
        return None
    which = f"{'tunnel' if len(targets) == 1 else 'tunnels'} to {' and '.join(targets)}"
    return f"the kernel carries the {which} on without it {_UNTIL}; {_what_to_do(on)}"


def _what_to_do(sessions: Iterable[Session]) -> str:
    return _NEW if any(each.lives for each in sessions) else _OUT


def _may_have_sas(session: Session) -> bool:
    """Tell whether it lives, or its end was only begun: its SAs are still to be taken out."""
    return not session.stage.is_ended and session.objective_id != Objective.NATIVE
