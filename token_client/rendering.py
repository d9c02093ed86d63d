"""`carnet connect --dry-run --driver NAME`: what an implementation would be told."""

from typing import Any

from carnet.errors import UsageError
from carnet.ipsec.drivers import IMPLEMENTATIONS, Choice, open_driver
from carnet.ipsec.example import example_spec
from carnet.ipsec.spec import Mode
from carnet.objectives import Objective


def rendered(choice: Choice, objective: Objective, networks: tuple[str, ...] | None) -> str:
    """Return what the named driver would be told for such a tunnel, secrets masked.

    Addresses, identities and algorithms are examples: the real ones are Target's to say.
    Raises IPsecError if the driver cannot carry it.
    """
    if choice.named is None:
        raise UsageError("Name the driver with --driver.")
    row = IMPLEMENTATIONS[choice.named]
    alone = networks == () or objective is Objective.NATIVE
    mode = Mode.TRANSPORT if alone else Mode.TUNNEL
    spec = example_spec(objective, mode, networks or (), ike_version=row.ike_version, ppk=row.ppk)
    return open_driver(choice.named, choice).render(spec)


def facts(choice: Choice, shown: str) -> dict[str, Any]:
    """Return the same for scripts."""
    return {"driver": choice.named, "rendered": shown}
