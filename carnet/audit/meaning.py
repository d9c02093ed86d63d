"""What each event of the accounts means: the paper's step, and its part in AAA (Table 4)."""

from dataclasses import dataclass

AUTHENTICATION = "authentication"
AUTHORIZATION = "authorization"
ACCOUNTING = "accounting"


@dataclass(frozen=True)
class Meaning:
    """Of which steps an event is the record, and which functions they performed."""

    steps: tuple[int, ...] = ()
    functions: tuple[str, ...] = ()


_ADMINISTRATION = Meaning()
_LATER = Meaning((), (ACCOUNTING,))
"""After the ten steps."""

MEANINGS = {
    # Host
    "imported": _ADMINISTRATION,
    "batch-received": _ADMINISTRATION,
    "spent": Meaning((2, 3), (AUTHENTICATION, AUTHORIZATION, ACCOUNTING)),
    "answered": Meaning((6, 7), (ACCOUNTING,)),
    "key-destroyed": Meaning((10,), (ACCOUNTING,)),
    "batch-key-destroyed": Meaning((10,), (ACCOUNTING,)),
    "revoked": _ADMINISTRATION,
    "expired": _ADMINISTRATION,
    "restored": _ADMINISTRATION,
    "tunnel-revoked": _ADMINISTRATION,
    "tunnel-end-asked": _LATER,
    # Target
    "access-granted": _ADMINISTRATION,
    "member-removed": _ADMINISTRATION,
    "tunnel-refused": Meaning((4,), (AUTHENTICATION, AUTHORIZATION, ACCOUNTING)),
    "tunnel-prepared": Meaning((4, 5), (AUTHENTICATION, AUTHORIZATION, ACCOUNTING)),
    "tunnel-established": Meaning((10,), (ACCOUNTING,)),
    "tunnel-ending": _LATER,
    # both
    "tunnel-ended": _LATER,
}
"""Every event that is written; one that is not here cannot be."""
