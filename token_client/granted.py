"""What Target grants, held against what was asked for: nothing is downgraded."""

from collections.abc import Callable, Collection
from ipaddress import ip_address

from carnet.durations import LONGEST_SECONDS
from carnet.errors import IPsecError
from carnet.ipsec.spec import Mode
from carnet.ipsec.surroundings import Surroundings, look_around
from carnet.objectives import Objective
from carnet.wire.messages import Request, TunnelingInfo

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
    begins = expires - (lifetime or LONGEST_SECONDS)
    return clock_behind if begins - _APART <= by_host <= expires + _APART else 0


def refuse_what_is_here(
    info: TunnelingInfo,
    hosts: Collection[str],
    around: Callable[[int], Surroundings] = look_around,
) -> None:
    """Refuse an address inside the tunnel by which this machine reaches something already.

    `hosts` are the numbers of its Hosts; `around` tells what it is in, by IP version. Raises
    IPsecError.
    """
    if info.virtual_address is None:
        return
    address = ip_address(info.virtual_address)
    what = around(address.version).meaning(address)
    if address in map(ip_address, info.target_addresses):
        what = "Target's own"
    elif address in map(ip_address, hosts):
        what = "a Host's"
    if what is not None:
        raise IPsecError(
            f"Target granted {address} as this machine's address inside the tunnel, which is "
            f"{what}; nothing is up: tell Target's operator, or use another network."
        )


def _mode(info: TunnelingInfo) -> Mode:
    """Return the mode that is due: another would leave open what was to be closed.

    Without networks it is Target alone, and only without IPsec are there networks and no
    tunnel mode.
    """
    native = info.objective_id == Objective.NATIVE
    return Mode.TRANSPORT if native or not info.networks else Mode.TUNNEL
