"""Proposals taken apart into the parts that IKEv1 implementations name one by one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from carnet.errors import IPsecError
from carnet.ipsec.spec import Role, TunnelSpec
from carnet.ipsec.strongswan_algorithms import weak_words
from carnet.objectives import Objective

SA_LIFETIME = 3600
"""Seconds after which an IPsec SA is renewed."""


@dataclass(frozen=True)
class Words:
    """How an implementation writes the words of a proposal; what it lacks it cannot do."""

    encryption: Mapping[str, str]
    integrity: Mapping[str, str]
    groups: Mapping[str, str]


@dataclass(frozen=True)
class Suite:
    """One proposal in an implementation's words; empty: the proposal has no such part."""

    encryption: str = ""
    integrity: str = ""
    group: str = ""


def suites(proposals: Iterable[str], words: Words) -> tuple[Suite, ...]:
    """Return those of the proposals that can be written in such words, in their order."""
    found = (_suite(proposal.split("-"), words) for proposal in proposals)
    return tuple(suite for suite in found if suite is not None)


def of_one_group(found: tuple[Suite, ...]) -> tuple[Suite, ...]:
    """Return those that share the first one's group: for all of a Quick Mode there is one."""
    return tuple(suite for suite in found if suite.group == found[0].group)


def _suite(parts: list[str], words: Words) -> Suite | None:
    kinds = (words.encryption, words.integrity, words.groups)
    if not all(any(part in kind for kind in kinds) for part in parts):
        return None
    return Suite(*(next((kind[p] for p in parts if p in kind), "") for kind in kinds))


def check(spec: TunnelSpec, driver: str) -> None:
    """Refuse what no IKEv1 implementation with a pre-shared key carries as a Client.

    Raises IPsecError.
    """
    networks = len(spec.remote_networks)
    proposals = spec.ike_proposals + spec.esp_proposals + spec.ah_proposals
    weak = () if spec.allow_weak else weak_words(proposals)
    for refused, what in (
        (spec.role is not Role.CLIENT, "the end of Target"),
        (spec.ike_version != 1, f"IKEv{spec.ike_version} with a pre-shared key"),
        (spec.ppk is not None, "a post-quantum key"),
        (spec.objective is Objective.NATIVE, "a session without IPsec"),
        (not spec.remote_addresses, "a Client that knows no Target"),
        (spec.virtual_address is not None and networks != 1, f"{networks} networks in one tunnel"),
        (bool(weak), f"the weak algorithms {', '.join(weak)}"),
    ):
        if refused:
            raise cannot_carry(driver, what)


def chosen(
    proposals: tuple[str, ...], words: Words, driver: str, protocol: str
) -> tuple[Suite, ...]:
    """Return the proposals in an implementation's words; raises IPsecError if there are none."""
    found = suites(proposals, words)
    if not found:
        raise cannot_carry(driver, f"any of the proposed {protocol} algorithms")
    return found


def cannot_carry(driver: str, what: str) -> IPsecError:
    """Return the error for a tunnel that the implementation does not carry."""
    return IPsecError(
        f"The {driver} driver cannot carry {what} and nothing is downgraded;"
        " choose another objective or driver."
    )
