"""The lab's network: who is linked to whom, under which addresses.

    officer (no network)

    client ---192.168.77.0/24--- router ---203.0.113.0/29--- host
                                 (NAT) `---198.51.100.0/29--- target ---10.20.0.0/16--- server

Every link is a veth pair of its own: nothing is on a shared segment. The router
masquerades the client and knows no way to 10.20.0.0/16.
"""

from dataclasses import dataclass

MACHINES = ("officer", "client", "router", "host", "target", "server")
"""Every machine of the world; each has a directory of its own."""

OWNERS = {name: (name,) for name in MACHINES} | {"token": ("officer", "client")}
"""Which machines see which directory; the traveller's token goes from hand to hand."""

CLIENT_ADDRESS = "192.168.77.2"
ROUTER_TO_CLIENT = "192.168.77.1"
HOST_ADDRESS = "203.0.113.2"
ROUTER_TO_HOST = "203.0.113.1"
TARGET_ADDRESS = "198.51.100.2"
ROUTER_TO_TARGET = "198.51.100.1"
TARGET_TO_SERVER = "10.20.0.1"
SERVER_ADDRESS = "10.20.0.10"

CLIENT_NETWORK = "192.168.77.0/24"
WORK_NETWORK = "10.20.0.0/16"
"""The network behind Target."""
VIRTUAL_NETWORK = "10.99.0.0/24"
"""Where the travellers' addresses inside the tunnels come from."""


@dataclass(frozen=True)
class End:
    """One end of a link: machine, interface, address and prefix length."""

    machine: str
    interface: str
    address: str
    prefix: int


LINKS = (
    (End("client", "eth0", CLIENT_ADDRESS, 24), End("router", "client", ROUTER_TO_CLIENT, 24)),
    (End("host", "eth0", HOST_ADDRESS, 29), End("router", "host", ROUTER_TO_HOST, 29)),
    (End("target", "eth0", TARGET_ADDRESS, 29), End("router", "target", ROUTER_TO_TARGET, 29)),
    (End("server", "eth0", SERVER_ADDRESS, 16), End("target", "eth1", TARGET_TO_SERVER, 16)),
)

ROUTES = {
    "client": ((None, ROUTER_TO_CLIENT),),
    "host": ((None, ROUTER_TO_HOST),),
    "target": ((None, ROUTER_TO_TARGET),),
    "server": ((VIRTUAL_NETWORK, TARGET_TO_SERVER),),
}
"""Destination (None: the default route) and gateway, by machine."""

SETTINGS = {
    "router": {"net/ipv4/ip_forward": "1", "net/ipv4/icmp_ratelimit": "0"},
    "target": {"net/ipv4/ip_forward": "1"},
}
"""Kernel settings below /proc/sys; whoever asks the router for no-man's-land hears it at once."""

ROUTER_RULES = f"""
table ip carnet_lab {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        oifname "client" ct state != {{ established, related }} reject with icmp host-unreachable
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {CLIENT_NETWORK} oifname != "client" masquerade
    }}
}}
"""
"""The router's nftables: the client is behind NAT, and nobody calls on it from outside."""


def link_commands(pid_of: dict[str, int]) -> str:
    """Return the `ip -batch` lines that lay every cable, from whichever namespace."""
    return "".join(
        f"link add name {one.interface} netns {pid_of[one.machine]} type veth"
        f" peer name {other.interface} netns {pid_of[other.machine]}\n"
        for one, other in LINKS
    )


def address_commands(machine: str) -> str:
    """Return the `ip -batch` lines that give a machine its addresses and routes."""
    ends = [end for link in LINKS for end in link if end.machine == machine]
    lines = ["link set lo up"]
    for end in ends:
        lines.append(f"address add {end.address}/{end.prefix} dev {end.interface}")
        lines.append(f"link set {end.interface} up")
    for destination, gateway in ROUTES.get(machine, ()):
        lines.append(f"route add {destination or 'default'} via {gateway}")
    return "\n".join(lines) + "\n"
