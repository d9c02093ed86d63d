"""Name servers that Target assigns in IKE, where the IPsec daemon uses them by itself.

strongSwan's plugin `resolve` does, for the whole machine and past whatever Carnet is told of
name servers, and leaves them where it is killed. It cannot be told otherwise for one connection.
"""

from carnet.errors import IPsecError

REMEDY = (
    "have root set `load = no` in /etc/strongswan.d/charon/resolve.conf, and restart strongSwan"
)
_WHAT = "strongSwan's plugin resolve has all of this machine use whatever name server a Target"
WARNING = f"{_WHAT} assigns, and may leave it there; {REMEDY}."


def refuse_assigned(against: str) -> IPsecError:
    """Return the error where that is `against` what somebody has configured."""
    return IPsecError(f"{_WHAT} assigns, against {against}; {REMEDY}.")
