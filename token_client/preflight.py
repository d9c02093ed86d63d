"""What `carnet connect` looks at before a key pair is spent: what cannot be had is refused here."""

from typing import Any

from carnet.errors import IPsecError, UsageError
from carnet.ipsec import assigned
from carnet.ipsec.driver import Bounded, Capabilities, Driver
from carnet.ipsec.spec import Mode, crosses_nat
from carnet.objectives import Objective
from token_client.booklet import Booklet
from token_client.closing import Closing
from token_client.config import ClientConfig
from token_client.means import Wish
from token_client.memory import memory_directory
from token_client.nat import behind_nat
from token_client.pending import asked_with_here, spent_here
from token_client.whereabouts import known_here


def plan(
    booklet: Booklet, capabilities: Capabilities, wish: Wish, config: ClientConfig
) -> dict[str, Any]:
    """Return what connect() would ask for, and with which key pair."""
    here, token = memory_directory(), booklet.token
    taken = spent_here(here, token) | asked_with_here(here, token, wish.target)
    usable = [pair for pair in booklet.usable() if pair.key_id not in taken]
    return {
        "user_id": booklet.cover.user_id,
        "hosts": config.hosts or booklet.cover.hosts,
        "target": wish.target,
        "objective": Objective(wish.objective_id).label,
        "networks": wish.networks,
        "mode": str(_mode(wish)),
        "lifetime": wish.lifetime,
        "driver": f"{capabilities.driver} {capabilities.version}",
        "key_id": usable[0].key_id.hex() if usable else None,
        "pairs_left": len(usable),
    }


def _mode(wish: Wish) -> Mode:
    """Return the mode that Target will choose, but where she may have nothing but Target."""
    alone = wish.networks == () or wish.objective_id == Objective.NATIVE
    return Mode.TRANSPORT if alone else Mode.TUNNEL


def check_means(
    driver: Driver, objective: Objective, networks: tuple[str, ...] | None = None
) -> Capabilities:
    """Refuse, before a key pair is spent, what this machine cannot carry.

    `networks` are those wanted: none for Target alone, in transport mode. Raises
    IPsecError: no daemon, or one that cannot carry it; UsageError where no tunnel does.
    """
    if objective is not Objective.NATIVE:
        _check_versions(networks or ())
    capabilities = driver.capabilities()
    if objective not in capabilities.objectives:
        able = ", ".join(o.label for o in capabilities.objectives) or "nothing"
        raise IPsecError(
            f"{driver.name} on this machine cannot carry {objective.label}, only {able}; "
            f"choose another objective, or another machine."
        )
    if networks == () and Mode.TRANSPORT not in capabilities.modes:
        raise IPsecError(
            f"{driver.name} on this machine cannot carry transport mode; "
            f"ask for the networks behind Target, or use another machine."
        )
    if capabilities.single_network and objective is not Objective.NATIVE:
        _check_single(driver, networks)
    if isinstance(driver, Bounded):
        # Without IPsec Target itself may be named as a network, which only Target can say.
        driver.check_limits((objective is not Objective.NATIVE and networks) or ())
    return capabilities


def _check_versions(networks: tuple[str, ...]) -> None:
    if len({":" in network for network in networks}) > 1:
        raise UsageError(
            "One tunnel carries IPv4 or IPv6 inside, not both; name networks of one of them, and "
            "have a second tunnel for the other."
        )


def _check_single(driver: Driver, networks: tuple[str, ...] | None) -> None:
    if networks is None or len(networks) > 1:
        raise IPsecError(
            f"A tunnel of {driver.name} leads to one network only; name it with --network, or "
            f"--transport for Target alone."
        )


def check_nat(booklet: Booklet, wish: Wish, config: ClientConfig) -> bool | None:
    """Refuse, before a key pair is spent, what does not get through the NAT before it.

    Returns whether there is NAT, as far as that is known; a Host is asked only where it
    matters. Raises IPsecError.
    """
    objective, mode = Objective(wish.objective_id), _mode(wish)
    if crosses_nat(objective, mode):
        return config.nat
    nat = config.nat
    if nat is None:
        nat = behind_nat(config.hosts or booklet.cover.hosts, known_here())
    if nat:
        raise IPsecError(
            f"This machine is behind NAT (the Host sees another address), and {objective.label} "
            f"in {mode} mode does not get through; choose esp to the networks behind Target, or "
            f"another network."
        )
    return nat


def check_block(capabilities: Capabilities, objective: Objective, config: ClientConfig) -> None:
    """Refuse, before a key pair is spent, where nothing could hold packets back.

    Raises IPsecError.
    """
    Closing(capabilities, (), wanted=config.block).check(objective)


def check_name_servers(
    driver: Driver,
    capabilities: Capabilities,
    objective: Objective,
    networks: tuple[str, ...] | None,
    config: ClientConfig,
) -> str | None:
    """Refuse, before a key pair is spent, where name servers could be set that may not be.

    It takes an address inside a tunnel. Returns what is to be said where they may be; where
    there is a helper, that has judged. Raises IPsecError.
    """
    inside = objective is not Objective.NATIVE and networks != ()
    if not inside or not capabilities.uses_assigned_servers:
        return None
    if not config.dns:
        raise assigned.refuse_assigned("`dns = false` in client.toml")
    return None if isinstance(driver, Bounded) else assigned.WARNING


def closing_for(capabilities: Capabilities, booklet: Booklet, config: ClientConfig) -> Closing:
    """Return what holds packets back that are meant for a tunnel of this booklet's."""
    return Closing(capabilities, config.hosts or booklet.cover.hosts, wanted=config.block)


def choose_target(booklet: Booklet, named: str | None) -> str:
    """Return the Target meant; raises UsageError if the cover knows none of that name."""
    targets = booklet.cover.targets
    if named is None:
        return targets[0]
    if named not in targets:
        raise UsageError(f"The token knows no Target {named}; choose one of {', '.join(targets)}.")
    return named
