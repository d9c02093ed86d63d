"""Which implementation at Client meets which at Target, and by what kind of tunnel."""

from dataclasses import dataclass, replace

from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from tests.guest.addresses import BY_VERSION
from tests.guest.gateways import ends_of
from tests.lab.conftest import Ends


@dataclass(frozen=True)
class Pairing:
    """One line of the matrix of implementations; `version` is that of IP, inside and outside."""

    client: str
    target: str
    ike: int
    objective: Objective
    mode: Mode
    ppk: bool
    version: int = 4

    @property
    def ends(self) -> Ends:
        """Both ends of such a tunnel, with fresh keys."""
        made = ends_of(
            self.objective, self.mode, outer=self.version, inner=self.version, ppk=self.ppk
        )
        changes = {"ike_version": self.ike} | (_ikev1(made.client) if self.ike == 1 else {})
        return Ends(replace(made.client, **changes), replace(made.target, **changes))

    @property
    def goal(self) -> str:
        """Who has the file that is fetched through it."""
        addresses = BY_VERSION[self.version]
        return addresses.server if self.mode is Mode.TUNNEL else addresses.target

    @property
    def expected(self) -> str:
        """What is to be seen between the two outer addresses."""
        if self.objective is Objective.ESP:
            return "ESP"
        return f"AH IPv{self.version} TCP" if self.mode is Mode.TUNNEL else "AH TCP"

    @property
    def row(self) -> tuple[str, ...]:
        """The line of the matrix, once it was seen to be so."""
        return (
            *(self.client, self.target, f"IKEv{self.ike}", self.objective.label, str(self.mode)),
            *(f"IPv{self.version}", "yes" if self.ppk else "no", self.expected),
        )

    def __str__(self) -> str:
        ppk = "-ppk" if self.ppk else ""
        return (
            f"{self.client}-{self.target}-{self.ike}-{self.objective.label}-{self.mode}"
            f"-{self.version}{ppk}"
        )


def _ikev1(spec):
    """What IKEv1 has in the place of AEAD and x25519."""
    return {
        "ike_proposals": ("aes256-sha256-modp2048",),
        "esp_proposals": ("aes256-sha256-modp2048",) if spec.esp_proposals else (),
        "ah_proposals": ("sha256-modp2048",) if spec.ah_proposals else (),
    }


_DAEMONS = (
    ("strongswan", "strongswan"),
    ("strongswan", "libreswan"),
    ("libreswan", "libreswan"),
    ("libreswan", "strongswan"),
)
"""In an order in which one machine at a time changes its daemon."""

_KINDS = (
    (2, Objective.ESP, Mode.TUNNEL, True, 4),
    (2, Objective.ESP, Mode.TRANSPORT, False, 4),
    (2, Objective.AH, Mode.TRANSPORT, True, 4),
    (2, Objective.AH, Mode.TUNNEL, False, 4),
    (2, Objective.ESP, Mode.TUNNEL, True, 6),
)
_OLD_KINDS = (
    (1, Objective.ESP, Mode.TUNNEL, False, 4),
    (1, Objective.AH, Mode.TRANSPORT, False, 4),
    (1, Objective.ESP, Mode.TRANSPORT, False, 6),
    (1, Objective.AH, Mode.TUNNEL, False, 6),
)

PAIRINGS = tuple(Pairing(*daemons, *kind) for daemons in _DAEMONS for kind in _KINDS + _OLD_KINDS)
