"""What Target grants, held against what was asked for: nothing is downgraded."""

from carnet.errors import IPsecError
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from carnet.wire.messages import Request, TunnelingInfo

_LONGEST_SECONDS = 366 * 86400
"""No session lives longer (carnet.wire.fields.Seconds)."""
_APART = 3600
"""Seconds by which the clocks of Host and Target may differ."""


def refuse_another(info: TunnelingInfo, request: Request) -> None:
    """Refuse Tunneling Info that grants another thing than the request asks for.

    Raises IPsecError: another objective, network or mode, or an older IKE than this
    machine has.
    """
    asked = request.request_info
    newest = max(version for driver in asked.drivers for version in driver.ike_versions)
    networks = info.networks if asked.networks is None else asked.networks
    for differs, what in (
        (info.objective_id != request.objective_id, "another objective than was asked for"),
        (set(info.networks) != set(networks), "other networks than were asked for"),
        (info.ike_version < newest, "an older IKE than this machine has"),
        (info.mode != _mode(info), "another mode than was asked for"),
    ):
        if differs:
            raise IPsecError(f"Target granted {what}; nothing is up.")


def believable(clock_behind: int, expires: int, lifetime: int | None, now: float) -> int:
    """Return by how much the clock is behind, 0 where Target's word says that it cannot be.

    Who carried the answer may have written its date; Target has signed when the session
    ends (`expires`), which is not over yet, and not longer from now than its lifetime.
    """
    by_host = now + clock_behind
    begins = expires - (lifetime or _LONGEST_SECONDS)
    return clock_behind if begins - _APART <= by_host <= expires + _APART else 0


def _mode(info: TunnelingInfo) -> Mode:
    """Return the mode that is due: another would leave open what was to be closed.

    Without networks it is Target alone, and only without IPsec are there networks and no
    tunnel mode.
    """
    native = info.objective_id == Objective.NATIVE
    return Mode.TRANSPORT if native or not info.networks else Mode.TUNNEL
