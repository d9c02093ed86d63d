"""`carnet objectives`: the paper's Tables 1 to 3, and what this machine can do of them."""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

from carnet.ipsec.driver import Capabilities
from carnet.ipsec.drivers import Sighting
from carnet.objectives import TABLE_1, TABLE_2, TABLE_3, Objective, SecurityObjective, Threat

_WIDTH = 100
"""Of a line, in characters."""

_OPTIONS = {
    Objective.NATIVE: "none",
    Objective.AH: "AH",
    Objective.ESP: "ESP",
    Objective.AH_ESP: "AH and ESP",
}


def facts(sightings: Sequence[Sighting]) -> dict[str, Any]:
    """Return the tables and this machine's part, for scripts."""
    found, trouble = _usable(sightings), _trouble(sightings)
    return {
        "threats": {threat: _names(TABLE_1[threat]) for threat in Threat},
        "security_objectives": {each: TABLE_2[each] for each in SecurityObjective},
        "options": [
            {
                "objective_id": int(objective),
                "name": objective.label,
                "ipsec": _OPTIONS[objective],
                "satisfies": _names(TABLE_3[objective]),
                "here": objective in found.objectives if found else None,
            }
            for objective in Objective
        ],
        "driver": f"{found.driver} {found.version}" if found else None,
        "drivers": [_facts_of(each) for each in sightings],
        "modes": [str(mode) for mode in found.modes] if found else [],
        "trouble": trouble,
    }


def _facts_of(sighting: Sighting) -> dict[str, Any]:
    found = sighting.found
    if isinstance(found, str):
        return {"name": str(sighting.name), "trouble": found}
    return {
        "name": str(sighting.name),
        "trouble": None,
        "version": found.version,
        "ike_versions": list(found.ike_versions),
        "objectives": [objective.label for objective in found.objectives],
        "modes": [str(mode) for mode in found.modes],
        "ppk": found.ppk,
        "single_network": found.single_network,
    }


def describe(sightings: Sequence[Sighting]) -> Iterator[str]:
    """Yield the same as lines for a person."""
    found = _usable(sightings)
    yield "Table 1: which security objectives a threat calls for"
    for threat in Threat:
        yield f"  {threat:22} {', '.join(_names(TABLE_1[threat]))}"
    yield "Table 2: what the security objectives give"
    for each in SecurityObjective:
        yield from wrap(f"  {each:22} {TABLE_2[each]}", subsequent_indent=" " * 25, width=_WIDTH)
    yield "Table 3: what the IPsec options satisfy, and what this machine can do"
    for objective in Objective:
        satisfied = ", ".join(_names(TABLE_3[objective])) or "nothing"
        yield f"  {objective:d}  {objective.label:7} {_here(objective, found):4} {satisfied}"
    yield from (_line(each) for each in sightings)


def _line(sighting: Sighting) -> str:
    found = sighting.found
    if isinstance(found, str):
        return f"Not {sighting.name}: {found}"
    modes = " and ".join(found.modes) or "no"
    return f"This machine: {found.driver} {found.version}, {modes} mode."


def _usable(sightings: Sequence[Sighting]) -> Capabilities | None:
    """Return what the driver carries that a connection would be made with."""
    return next((s.found for s in sightings if isinstance(s.found, Capabilities)), None)


def _trouble(sightings: Sequence[Sighting]) -> str | None:
    """Return why no driver can be used; None if one can."""
    return None if _usable(sightings) else next(s.trouble for s in sightings)


def _here(objective: Objective, found: Capabilities | None) -> str:
    if found is None:
        return "?"
    return "yes" if objective in found.objectives else "no"


def _names(objectives: frozenset[SecurityObjective]) -> list[str]:
    return [str(objective) for objective in SecurityObjective if objective in objectives]
