"""What a tunnel or a block may be that an ordinary user asks for.

Policies, routes and packet filters are the whole machine's: what one user has led into her
tunnel, or held back, is so for all. So the networks are limited to what the operator allows,
and an address that means something on this machine is nobody's.
"""

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from carnet.errors import IPsecError
from carnet.ipsec.assigned import refuse_assigned
from carnet.ipsec.driver import Capabilities
from carnet.ipsec.helper.messages import Block, Spec
from carnet.ipsec.surroundings import Surroundings
from helper_agent.claims import Leading
from helper_agent.config import HelperConfig

_REFUSED = "carnet-helper does not {what}; ask the operator of this machine, or use another one."
_MEANS_SOMETHING = (
    "carnet-helper does not take {} as the address of a tunnel, since it is {}; use another"
    " network, or tell Target's operator."
)
_LEADS_NAMES_AWAY = (
    "carnet-helper does not lead {} into tunnels of ordinary users, since {} of this machine, {},"
    " is in it; use another network, or ask the operator of this machine (name_servers in"
    " helper.toml)."
)
Net = IPv4Network | IPv6Network


def check_spec(spec: Spec, config: HelperConfig) -> None:
    """Raise IPsecError for a tunnel that an ordinary user may not have."""
    _check_targets(spec.remote_addresses, config)
    if spec.ike_version == 1:
        _check_ikev1(spec.remote_addresses, config)
    _check_networks(spec.remote_networks, [], config)  # in transport mode there are none, as a rule


def check_virtual(
    leads: Leading, config: HelperConfig, own: Iterable[str], around: Callable[[int], Surroundings]
) -> None:
    """Raise IPsecError for an address that means something to this machine, or may.

    `own` are the machine's addresses, and `around` tells what it reaches, by IP version. What
    it reaches by its default route nobody knows: so the operator says where to choose from.
    """
    if leads.virtual_address is None:
        return
    number = _number(leads.virtual_address)
    allowed = [ip_network(each) for each in config.virtual_addresses]
    if not any(number in each for each in allowed):
        raise _refuse(f"take {number} as the address of a tunnel")
    found = around(number.version)
    what, network = found.meaning(number), found.leads_to(number)
    if str(number) in own:
        what = "this machine's own"
    elif number in map(_number, leads.targets):
        what = "Target's own"
    elif what is None and network is not None:
        what = f"in {network}, a network that this machine reaches otherwise"
    if what is not None:
        raise IPsecError(_MEANS_SOMETHING.format(number, what))


def check_led(
    networks: Iterable[str], config: HelperConfig, around: Callable[[int], Surroundings]
) -> None:
    """Raise IPsecError for networks in which the whole machine has its names looked up.

    Whoever is behind the tunnel would answer them, also where none of its name servers are used.
    A gateway is often a name server behind the one that is known. `around` is as above.
    """
    if config.name_servers:
        return
    for network in map(_network, networks):
        found = around(network.version)
        for what, addresses in (
            ("a name server", found.name_servers),
            ("the gateway", found.gateways),
        ):
            inside = next((each for each in sorted(addresses, key=str) if each in network), None)
            if inside is not None:
                raise IPsecError(_LEADS_NAMES_AWAY.format(network, what, inside))


def check_networks(networks: Iterable[str], config: HelperConfig) -> None:
    """Raise IPsecError for networks that tunnels of ordinary users may not lead to."""
    _check_networks(networks, [], config)


def check_block(block: Block, config: HelperConfig) -> None:
    """Raise IPsecError for a block that an ordinary user may not have."""
    _check_targets(block.targets, config)
    _check_networks(block.networks, hosts(block.targets), config)
    for address, _ in block.hosts:
        _number(address)


def check_servers(servers: Iterable[str], networks: Iterable[str], config: HelperConfig) -> None:
    """Raise IPsecError for name servers that an ordinary user may not have.

    They are the whole machine's, so that the operator must want it; and they are to be asked
    inside her tunnel, which leads to these networks.
    """
    if not config.name_servers:
        raise _refuse("let ordinary users have name servers (name_servers in helper.toml)")
    inside = [ip_network(each) for each in networks]
    for server in servers:
        number = _number(server)
        if not any(number in network for network in inside):
            raise _refuse(f"have names looked up at {server}, outside the tunnel")


def check_assigned(capabilities: Capabilities, config: HelperConfig) -> None:
    """Raise IPsecError where her Target could set the name servers of the whole machine."""
    if capabilities.uses_assigned_servers and not config.assigned_name_servers:
        raise refuse_assigned("helper.toml (assigned_name_servers)")


def check_others(taking: Sequence[str]) -> None:
    """Raise IPsecError where connections of this machine take who has her key for their peer."""
    if taking:
        raise IPsecError(
            f"strongSwan's connection {taking[0]} does not say what its ends are called, and would"
            " take whoever has the key of your tunnel; have root set `id` under `local` and"
            " `remote` there."
        )


def _check_targets(addresses: Iterable[str], config: HelperConfig) -> None:
    allowed = [ip_network(each) for each in config.targets]
    for address in addresses:
        number = _number(address)
        special = number.is_loopback or number.is_multicast or number.is_unspecified
        if special or not any(number in network for network in allowed):
            raise _refuse(f"let tunnels lead to {address}")


def _check_ikev1(addresses: Iterable[str], config: HelperConfig) -> None:
    """Refuse what has a key for an address, which may be for another connection's peer."""
    allowed = [ip_network(each) for each in config.ikev1_targets]
    for address in addresses:
        if not any(_number(address) in network for network in allowed):
            raise _refuse(f"make tunnels with IKEv1 to {address} (ikev1_targets in helper.toml)")


def _check_networks(networks: Iterable[str], alone: list[str], config: HelperConfig) -> None:
    allowed = [ip_network(each) for each in config.networks]
    for text in networks:
        network = _network(text)
        if str(network) not in alone and not any(_is_within(network, each) for each in allowed):
            raise _refuse(f"lead {text} into tunnels of ordinary users")


def hosts(addresses: Iterable[str]) -> list[str]:
    """Return addresses as networks. Raises IPsecError."""
    return [str(ip_network(_number(address))) for address in addresses]


def _is_within(network: Net, other: Net) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]


def _number(text: str) -> IPv4Address | IPv6Address:
    try:
        return ip_address(text)
    except ValueError as error:
        raise _refuse(f"know {text!r} for an address") from error


def _network(text: str) -> Net:
    try:
        return ip_network(text)
    except ValueError as error:
        raise _refuse(f"know {text!r} for a network") from error


def _refuse(what: str) -> IPsecError:
    return IPsecError(_REFUSED.format(what=what))
