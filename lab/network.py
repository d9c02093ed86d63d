"""The lab's network: who is linked to whom, under which addresses.

    officer (no network)

    client ---192.168.77.0/24--- router ---203.0.113.0/29--- host
                                 (NAT) `---198.51.100.0/29--- target ---10.20.0.0/16--- server

Every link is a veth pair of its own: nothing is on a shared segment.

There are two plans. In HIDDEN the router masquerades the client and knows no way to
10.20.0.0/16. In ROUTED nobody is behind NAT, the router knows the way to everybody, and
client, target and server have IPv6 addresses besides.
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
CLIENT_ADDRESS_V6 = "fd77::2"
TARGET_ADDRESS_V6 = "fd51::2"
SERVER_ADDRESS_V6 = "fd20::10"
WORK_NETWORK_V6 = "fd20::/64"
VIRTUAL_NETWORK_V6 = "fd99::/64"
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


_LINKS = (
    (End("client", "eth0", CLIENT_ADDRESS, 24), End("router", "client", ROUTER_TO_CLIENT, 24)),
    (End("host", "eth0", HOST_ADDRESS, 29), End("router", "host", ROUTER_TO_HOST, 29)),
    (End("target", "eth0", TARGET_ADDRESS, 29), End("router", "target", ROUTER_TO_TARGET, 29)),
    (End("server", "eth0", SERVER_ADDRESS, 16), End("target", "eth1", TARGET_TO_SERVER, 16)),
)

_FORWARD = {"net/ipv4/ip_forward": "1"}
_FORWARD_V6 = {"net/ipv6/conf/all/forwarding": "1"}


@dataclass(frozen=True)
class Plan:
    """How the machines are linked and set up."""

    links: tuple[tuple[End, End], ...]
    routes: dict[str, tuple[tuple[str | None, str], ...]]
    """Destination (None: the default route) and gateway, by machine."""
    settings: dict[str, dict[str, str]]
    """Kernel settings below /proc/sys, by machine."""
    hides_client: bool
    """Whether the router masquerades the client, and lets nobody call on it from outside."""
    second_addresses: tuple[End, ...] = ()
    """IPv6 addresses; a machine that has none has no IPv6 at all."""

    @property
    def machines_with_ipv6(self) -> frozenset[str]:
        """Machines on which IPv6 is switched on."""
        return frozenset(end.machine for end in self.second_addresses)


HIDDEN = Plan(
    links=_LINKS,
    routes={
        "client": ((None, ROUTER_TO_CLIENT),),
        "host": ((None, ROUTER_TO_HOST),),
        "target": ((None, ROUTER_TO_TARGET),),
        "server": ((VIRTUAL_NETWORK, TARGET_TO_SERVER),),
    },
    # Whoever asks the router for no-man's-land hears it at once.
    settings={"router": _FORWARD | {"net/ipv4/icmp_ratelimit": "0"}, "target": _FORWARD},
    hides_client=True,
)
"""The traveller's usual network."""

ROUTED = Plan(
    links=_LINKS,
    routes={
        "client": ((None, ROUTER_TO_CLIENT), ("::/0", "fd77::1")),
        "host": ((None, ROUTER_TO_HOST),),
        "target": ((None, ROUTER_TO_TARGET), ("::/0", "fd51::1")),
        "router": ((WORK_NETWORK, TARGET_ADDRESS), (WORK_NETWORK_V6, TARGET_ADDRESS_V6)),
        "server": ((None, TARGET_TO_SERVER), ("::/0", "fd20::1")),
    },
    settings={"router": _FORWARD | _FORWARD_V6, "target": _FORWARD | _FORWARD_V6},
    hides_client=False,
    second_addresses=(
        End("client", "eth0", CLIENT_ADDRESS_V6, 64),
        End("router", "client", "fd77::1", 64),
        End("target", "eth0", TARGET_ADDRESS_V6, 64),
        End("router", "target", "fd51::1", 64),
        End("server", "eth0", SERVER_ADDRESS_V6, 64),
        End("target", "eth1", "fd20::1", 64),
    ),
)
"""A network without NAT, for what NAT would break; the work network is known to the router."""

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

ROUTER_RULES_LEGACY = f"""
*filter
-A FORWARD -o client -m conntrack ! --ctstate ESTABLISHED,RELATED -j REJECT \
--reject-with icmp-host-unreachable
COMMIT
*nat
-A POSTROUTING -s {CLIENT_NETWORK} ! -o client -j MASQUERADE
COMMIT
""".replace("\\\n", "")
"""The same for iptables, for a kernel whose nftables know nothing of IP."""


def link_commands(plan: Plan, pid_of: dict[str, int]) -> str:
    """Return the `ip -batch` lines that lay every cable, from whichever namespace."""
    return "".join(
        f"link add name {one.interface} netns {pid_of[one.machine]} type veth"
        f" peer name {other.interface} netns {pid_of[other.machine]}\n"
        for one, other in plan.links
    )


def address_commands(plan: Plan, machine: str) -> str:
    """Return the `ip -batch` lines that give a machine its addresses and routes."""
    ends = [end for link in plan.links for end in link if end.machine == machine]
    lines = ["link set lo up"]
    for end in ends:
        lines.append(f"address add {end.address}/{end.prefix} dev {end.interface}")
        lines.append(f"link set {end.interface} up")
    second = [end for end in plan.second_addresses if end.machine == machine]
    lines += [f"address add {e.address}/{e.prefix} dev {e.interface} nodad" for e in second]
    for destination, gateway in plan.routes.get(machine, ()):
        lines.append(f"route add {destination or 'default'} via {gateway}")
    return "\n".join(lines) + "\n"


def settings(plan: Plan, machine: str) -> dict[str, str]:
    """Return a machine's kernel settings, by their paths below /proc/sys."""
    own = dict(plan.settings.get(machine, {}))
    if machine in plan.machines_with_ipv6:
        own = {"net/ipv6/conf/all/disable_ipv6": "0"} | own
        own |= {"net/ipv6/conf/default/disable_ipv6": "0"}
        # Nobody else can have them, and an address is of no use while that is asked, for a second.
        ends = [end for link in plan.links for end in link if end.machine == machine]
        own |= {f"net/ipv6/conf/{e}/accept_dad": "0" for e in ("all", *(x.interface for x in ends))}
    return own
