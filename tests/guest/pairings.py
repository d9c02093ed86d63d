"""Which implementation at Client meets which at Target, and by what kind of tunnel."""

from dataclasses import dataclass, replace

from carnet.ipsec.spec import Mode
from carnet.objectives import Objective
from target_agent.proposals import IKEV1_PROFILES, PROFILES, Profile
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
    profile: Profile = Profile.MODERN

    @property
    def ends(self) -> Ends:
        """Both ends of such a tunnel, with fresh keys."""
        made = ends_of(
            self.objective, self.mode, outer=self.version, inner=self.version, ppk=self.ppk
        )
        return Ends(*(replace(each, **self._algorithms) for each in (made.client, made.target)))

    @property
    def _algorithms(self) -> dict:
        proposed = (IKEV1_PROFILES if self.ike == 1 else PROFILES)[self.profile]
        return {
            "ike_version": self.ike,
            "ike_proposals": proposed.ike,
            "esp_proposals": proposed.esp if self.objective is Objective.ESP else (),
            "ah_proposals": proposed.ah if self.objective is Objective.AH else (),
            "allow_weak": self.profile is Profile.PAPER,
        }

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
            *(self.client, self.target, f"IKEv{self.ike}", str(self.profile)),
            *(self.objective.label, str(self.mode), f"IPv{self.version}"),
            *("yes" if self.ppk else "no", self.expected),
        )

    def __str__(self) -> str:
        ppk = "-ppk" if self.ppk else ""
        return (
            f"{self.client}-{self.target}-{self.ike}-{self.objective.label}-{self.mode}"
            f"-{self.version}-{self.profile}{ppk}"
        )


_DAEMONS = (
    ("strongswan", "strongswan"),
    ("strongswan", "libreswan"),
    ("libreswan", "libreswan"),
    ("libreswan", "strongswan"),
)
"""In an order in which one machine at a time changes its daemon."""

_KINDS = (
    (2, Objective.ESP, Mode.TUNNEL, True, 4, Profile.MODERN),
    (2, Objective.ESP, Mode.TRANSPORT, False, 4, Profile.CNSA),
    (2, Objective.AH, Mode.TRANSPORT, True, 4, Profile.MODERN),
    (2, Objective.AH, Mode.TUNNEL, False, 4, Profile.CNSA),
    (2, Objective.ESP, Mode.TUNNEL, True, 6, Profile.PAPER),
    (2, Objective.AH, Mode.TRANSPORT, False, 4, Profile.PAPER),
)
_OLD_KINDS = (
    (1, Objective.ESP, Mode.TUNNEL, False, 4, Profile.CNSA),
    (1, Objective.AH, Mode.TRANSPORT, False, 4, Profile.MODERN),
    (1, Objective.ESP, Mode.TRANSPORT, False, 6, Profile.PAPER),
    (1, Objective.AH, Mode.TUNNEL, False, 6, Profile.PAPER),
)

PAIRINGS = tuple(Pairing(*daemons, *kind) for daemons in _DAEMONS for kind in _KINDS + _OLD_KINDS)
