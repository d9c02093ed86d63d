"""What Target grants, held against what was asked for: nothing is downgraded."""

from carnet.errors import IPsecError
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from carnet.wire.messages import Request, TunnelingInfo


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


def _mode(info: TunnelingInfo) -> Mode:
    """Return the mode that is due: another would leave open what was to be closed.

    Without networks it is Target alone, and only without IPsec are there networks and no
    tunnel mode.
    """
    native = info.objective_id == Objective.NATIVE
    return Mode.TRANSPORT if native or not info.networks else Mode.TUNNEL
