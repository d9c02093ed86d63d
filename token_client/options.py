"""`carnet objectives`: the paper's Tables 1 to 3, and what this machine can do of them."""

from collections.abc import Iterator
from typing import Any

from carnet.errors import IPsecError
from carnet.ipsec.driver import Capabilities, Driver
from carnet.objectives import TABLE_1, TABLE_3, Objective, SecurityObjective, Threat

_OPTIONS = {
    Objective.NATIVE: "none",
    Objective.AH: "AH",
    Objective.ESP: "ESP",
    Objective.AH_ESP: "AH and ESP",
}


def ask(driver: Driver) -> Capabilities | str:
    """Return what this machine carries, or the sentence that says why it is not known."""
    try:
        return driver.capabilities()
    except IPsecError as error:
        return error.sentence


def facts(found: Capabilities | str) -> dict[str, Any]:
    """Return the tables and this machine's part, for scripts."""
    known = isinstance(found, Capabilities)
    return {
        "threats": {threat: _names(TABLE_1[threat]) for threat in Threat},
        "security_objectives": list(SecurityObjective),
        "options": [
            {
                "objective_id": int(objective),
                "name": objective.label,
                "ipsec": _OPTIONS[objective],
                "satisfies": _names(TABLE_3[objective]),
                "here": objective in found.objectives if isinstance(found, Capabilities) else None,
            }
            for objective in Objective
        ],
        "driver": f"{found.driver} {found.version}" if isinstance(found, Capabilities) else None,
        "modes": [str(mode) for mode in found.modes] if isinstance(found, Capabilities) else [],
        "trouble": None if known else found,
    }


def describe(found: Capabilities | str) -> Iterator[str]:
    """Yield the same as lines for a person."""
    yield "Table 1: which security objectives a threat calls for"
    for threat in Threat:
        yield f"  {threat:22} {', '.join(_names(TABLE_1[threat]))}"
    yield "Table 2: the security objectives"
    yield from (f"  {objective}" for objective in SecurityObjective)
    yield "Table 3: what the IPsec options satisfy, and what this machine can do"
    for objective in Objective:
        satisfied = ", ".join(_names(TABLE_3[objective])) or "nothing"
        yield f"  {objective:d}  {objective.label:7} {_here(objective, found):4} {satisfied}"
    if isinstance(found, Capabilities):
        modes = " and ".join(found.modes) or "no"
        yield f"This machine: {found.driver} {found.version}, {modes} mode."
    else:
        yield f"This machine: {found}"


def _here(objective: Objective, found: Capabilities | str) -> str:
    if not isinstance(found, Capabilities):
        return "?"
    return "yes" if objective in found.objectives else "no"


def _names(objectives: frozenset[SecurityObjective]) -> list[str]:
    return [str(objective) for objective in SecurityObjective if objective in objectives]
