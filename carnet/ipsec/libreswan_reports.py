"""What Libreswan's whack says of its tunnels, read and judged: pure functions, no daemon.

Its lines are for people, and are read as those of Libreswan 4 are; what cannot be read
is no tunnel, and a tunnel that is not wholly read is not confirmed.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

from carnet.errors import IKERefusedError, IKESilentError, IPsecError
from carnet.ipsec import libreswan_algorithms as algorithms
from carnet.ipsec.driver import TunnelStatus
from carnet.ipsec.libreswan_conf import Head
from carnet.ipsec.silence import BUSY, HALF_AN_ANSWER, NO_ANSWER, NO_ANSWER_ON_4500
from carnet.ipsec.spec import NAME_PREFIX, Mode, Role, TunnelSpec, crosses_nat
from carnet.ipsec.strongswan_algorithms import is_proposed
from carnet.objectives import Objective

_OF = r'"(?P<name>[^"]+)"(?:\[\d+\])?'
_STATE = re.compile(
    r"#(?P<number>\d+): "
    + _OF
    + r"(?: \S+)?:(?P<port>\d+) STATE_\w+ \((?P<what>[^)]*)\);(?P<rest>.*)"
)
_SPIS = re.compile(
    r"#(?P<number>\d+): " + _OF + r"(?: \S+)? "
    r"(?P<protocol>esp|ah)[.:][0-9a-f]+@(?P<remote>\S+) "
    r"(?:esp|ah)[.:](?P<spi>[0-9a-f]+)@(?P<local>\S+)"
)
_TRAFFIC = re.compile(
    r"#(?P<number>\d+): " + _OF + r".*, add_time=(?P<since>\d+), "
    r"inBytes=(?P<bytes_in>\d+), outBytes=(?P<bytes_out>\d+)"
)
_CONNECTION = re.compile(r"^000 " + _OF + r":(?P<rest>.*)$")
_ENDS = re.compile(
    r" (?:(?P<here>[0-9a-f.:]+/\d+)===)?[^\[;]+?(?:\[(?P<local_id>[^,\]]+)[^\]]*\])?"
    r"(?:---[^\[;]+?)?\.\.\.(?:[^\[;]+?---)?(?P<remote>[^\[;=]+)"
    r"(?:\[(?P<remote_id>[^,\]]+)[^\]]*\])?(?:===(?P<there>[0-9a-f.:]+/\d+))?;"
)
"""An end that is called by its address has no name in it."""
_VERSION = re.compile(r"pluto_version=([^,\s]+)")
_IKE_SA = re.compile(r"(?:IKE|ISAKMP) SA #(\d+)")

_CHILD_STATES = ("established Child SA", "IPsec SA established")
_IKE_STATES = ("established IKE SA", "IKE SA established")
"""As IKEv2 and IKEv1 call them."""


@dataclass(frozen=True)
class Tunnel:
    """One tunnel as the daemon reports it; what it does not report is empty."""

    name: str
    ike_sa: int = 0
    """Number of the IKE SA to which its IPsec SA belongs; 0: none stands."""
    child_sa: int = 0
    port: int = 0
    """The UDP port of IKE at this end."""
    protocol: str = ""
    spi: str = ""
    local_address: str = ""
    remote_address: str = ""
    identities: tuple[str, str] = ("", "")
    """Empty: the end's own address."""
    selectors: tuple[str | None, str | None] = (None, None)
    """Here and there; None: the end itself."""
    policy: frozenset[str] = frozenset()
    ike_suite: tuple[str, ...] = ()
    child_suite: tuple[str, ...] = ()
    bytes_in: int = 0
    bytes_out: int = 0
    since: int = 0
    """Seconds since 1970; 0: not known."""
    ike_sas: frozenset[int] = field(default=frozenset(), compare=False)
    """All that stand."""
    child_sas: frozenset[int] = field(default=frozenset(), compare=False)
    """All that stand, whichever IKE SA they belong to."""

    @property
    def newest(self) -> tuple[int, int]:
        """The numbers of its newest IPsec SA and IKE SA: others, once one came or went."""
        return self.child_sa, max(self.ike_sas, default=0)

    @property
    def established(self) -> bool:
        """Whether an IPsec SA stands, and an IKE SA over it."""
        return bool(self.child_sa) and self.ike_sa in self.ike_sas


def version_of(said: str) -> str:
    """Return the daemon's version from its status; empty if it says none."""
    found = _VERSION.search(said)
    return found.group(1) if found else ""


def ike_versions_of(said: str) -> tuple[int, ...]:
    """Return which versions of IKE the daemon takes, from its status: IKEv1 is an option."""
    return (2, 1) if "ikev1-policy=accept" in said else (2,)


def open_main_mode(said: str) -> list[str]:
    """Return by which connections anybody may come with IKEv1, ours or not, from its status."""
    anywhere, old = set(), set()
    for line in said.splitlines():
        match = _CONNECTION.search(line)
        if match is None or "[" in line.partition(":")[0]:
            continue
        rest = match["rest"]
        if re.match(r" [^ ].*\.\.\.(?:.*---)?%any", rest):
            anywhere.add(match["name"])
        if re.match(r" +policy: IKEv1\b", rest):
            old.add(match["name"])
    return sorted(anywhere & old)


def tunnels(said: str) -> dict[str, Tunnel]:
    """Return the tunnels of ours, by name, from the output of `--status --trafficstatus`."""
    found: dict[str, Tunnel] = {}
    for line in said.splitlines():
        for pattern, read in _READERS:
            match = pattern.search(line)
            if match and match["name"].startswith(NAME_PREFIX):
                name = match["name"]
                found[name] = read(found.get(name, Tunnel(name)), match)
                break
    return found


def _read_state(tunnel: Tunnel, match: "re.Match[str]") -> Tunnel:
    number, what = int(match["number"]), match["what"]
    if what in _IKE_STATES:
        return replace(tunnel, ike_sas=tunnel.ike_sas | {number})
    if what not in _CHILD_STATES:
        return tunnel
    tunnel = replace(tunnel, child_sas=tunnel.child_sas | {number})
    if number < tunnel.child_sa:
        return tunnel
    owner = _IKE_SA.search(match["rest"])
    ike_sa = int(owner.group(1)) if owner else 0
    return replace(tunnel, child_sa=number, ike_sa=ike_sa, port=int(match["port"]))


def _read_spis(tunnel: Tunnel, match: "re.Match[str]") -> Tunnel:
    """Take the addresses and this end's SPI of the newest IPsec SA."""
    if int(match["number"]) != tunnel.child_sa:
        return tunnel
    return replace(
        tunnel,
        protocol=match["protocol"].upper(),
        spi=match["spi"],
        local_address=match["local"],
        remote_address=match["remote"],
    )


def _read_traffic(tunnel: Tunnel, match: "re.Match[str]") -> Tunnel:
    if int(match["number"]) < tunnel.child_sa:
        return tunnel
    return replace(
        tunnel,
        bytes_in=int(match["bytes_in"]),
        bytes_out=int(match["bytes_out"]),
        since=int(match["since"]),
    )


def _read_connection(tunnel: Tunnel, match: "re.Match[str]") -> Tunnel:
    """Take a line of a connection; an instance, which comes after its template, replaces it."""
    rest = match["rest"]
    key, _, value = rest.strip().partition(": ")
    if key == "policy":
        return replace(tunnel, policy=frozenset(value.rstrip(";").split("+")))
    if key.endswith("algorithm newest"):
        suite, _, group = value.partition("; pfsgroup=")
        if key.startswith("IKE"):
            return replace(tunnel, ike_suite=algorithms.ike_suite(suite))
        found = algorithms.child_suite(suite)
        return replace(tunnel, child_suite=found + _key_exchange(tunnel, group))
    if rest.startswith("  "):
        return tunnel
    ends = _ENDS.match(rest)
    if ends is None:  # with a port, for example: then nobody can tell what is led into it
        return replace(tunnel, identities=("", ""), selectors=(None, None))
    identities = (_name(ends["local_id"]), _name(ends["remote_id"]))
    return replace(tunnel, identities=identities, selectors=(ends["here"], ends["there"]))


def _key_exchange(tunnel: Tunnel, group: str) -> tuple[str, ...]:
    """Return that of an IPsec SA: in IKEv1 the first has one (RFC 2409 section 5.5)."""
    if "IKEv1" not in tunnel.policy or group == _NO_GROUP:
        return ()
    return tunnel.ike_suite[-1:] if group == _GROUP_OF_IKE else algorithms.child_suite(group)


_GROUP_OF_IKE, _NO_GROUP = "<Phase1>", "<N/A>"


def _name(identity: str | None) -> str:
    return (identity or "").lstrip("@")


_READERS = (
    (_STATE, _read_state),
    (_SPIS, _read_spis),
    (_TRAFFIC, _read_traffic),
    (_CONNECTION, _read_connection),
)


def status(tunnel: Tunnel, head: Head | None, now: float, *, encapsulated: bool) -> TunnelStatus:
    """Return a tunnel's status; `now` is in seconds since 1970.

    Without its head, as where its file was damaged, the daemon tells which end this is.
    """
    role, virtual_address = (head.role, head.virtual_address) if head else _inside(tunnel)
    return TunnelStatus(
        name=tunnel.name,
        role=role,
        established=tunnel.established,
        local_address=tunnel.local_address,
        remote_address=tunnel.remote_address,
        virtual_address=virtual_address,
        ike_suite="-".join(tunnel.ike_suite),
        child_suite=f"{tunnel.protocol} {'-'.join(tunnel.child_suite)}".strip(),
        encapsulated=encapsulated,
        ppk="PPK_INSIST" in tunnel.policy,
        bytes_in=tunnel.bytes_in,
        bytes_out=tunnel.bytes_out,
        established_seconds=max(0, int(now) - tunnel.since) if tunnel.since else 0,
        local_selectors=_told(tunnel.selectors[0]),
        remote_selectors=_told(tunnel.selectors[1]),
    )


def _inside(tunnel: Tunnel) -> tuple[Role, str | None]:
    """Return which end this is, and the Client's address inside, as what is led there tells.

    A Client leads from her address alone; where both ends do, nothing tells whose it is.
    """
    here, there = map(_lone_address, tunnel.selectors)
    if here and not there:
        return Role.CLIENT, here
    return Role.TARGET, None if here else there


def _lone_address(selector: str | None) -> str | None:
    """Return the address where a selector is of one."""
    with suppress(ValueError):
        network = ip_network(selector or "")
        return str(network[0]) if network.num_addresses == 1 else None
    return None


def _told(selector: str | None) -> tuple[str, ...]:
    """Return what is led into a tunnel at one end; nothing where only the end itself is."""
    return () if selector is None else (selector,)


def shortfalls(spec: TunnelSpec, tunnel: Tunnel | None, *, encapsulated: bool) -> list[str]:
    """Return in what a tunnel is less than agreed, each as half a sentence; empty if in nothing."""
    if tunnel is None or not tunnel.established:
        return ["it is not established"]
    protocol = "AH" if spec.objective is Objective.AH else "ESP"
    proposals = spec.ah_proposals if protocol == "AH" else spec.esp_proposals
    checks = {
        f"it is not IKEv{spec.ike_version}": f"IKEv{spec.ike_version}" in tunnel.policy,
        "it is not between the two identities": _identities_fit(spec, tunnel.identities),
        "its IKE algorithms were not proposed": is_proposed(tunnel.ike_suite, spec.ike_proposals),
        "it has no post-quantum key": spec.ppk is None or "PPK_INSIST" in tunnel.policy,
        "there is NAT on the way, which it does not survive": (
            crosses_nat(spec.objective, spec.mode) or not (encapsulated or _floated(spec, tunnel))
        ),
        f"it is not {protocol}": tunnel.protocol == protocol,
        f"its {protocol} algorithms were not proposed": is_proposed(tunnel.child_suite, proposals),
        "its mode is another": ("TUNNEL" in tunnel.policy) is (spec.mode is Mode.TUNNEL),
        "its networks are others": _networks(tunnel.selectors) == _networks(_selectors(spec)),
    }
    return [shortfall for shortfall, holds in checks.items() if not holds]


def _identities_fit(spec: TunnelSpec, found: tuple[str, str]) -> bool:
    """Whether each end is called as agreed: in IKEv1 Target by its address, others anything."""
    if spec.ike_version != 1:
        return found == (spec.local_identity, spec.remote_identity)
    if spec.role is Role.TARGET:
        return not found[0]
    return found == (spec.local_identity, "")


def _floated(spec: TunnelSpec, tunnel: Tunnel) -> bool:
    """Whether IKE has gone to port 4500, which tells of NAT.

    But a strongSwan that may move goes there too, and so a Target in tunnel mode cannot
    tell; what AH protects is then not accepted, since NAT has changed it.
    """
    tells = spec.role is Role.CLIENT or spec.mode is Mode.TRANSPORT
    return tells and tunnel.port == 4500  # noqa: PLR2004  RFC 7296 section 2.23


def _selectors(spec: TunnelSpec) -> tuple[str | None, str | None]:
    if spec.mode is Mode.TRANSPORT:
        return (None, None)
    if spec.role is Role.CLIENT:
        return (spec.virtual_address, spec.remote_networks[0])
    return (spec.local_networks[0], spec.virtual_address)


def _networks(selectors: Iterable[str | None]) -> list[str | None]:
    return [None if each is None else _network(each) for each in selectors]


def _network(text: str) -> str:
    """Return a network in the one way of writing it; what is none as it is."""
    with suppress(ValueError):
        return str(ip_network(text))
    return text


def not_up(said: str) -> IPsecError:
    """Return the error for an IKE negotiation that failed, from what whack said of it."""
    for pattern, sentence in _FAILURES:
        if re.search(pattern, said):
            return IKERefusedError(sentence)
    if re.search(r"sent .*request|retransmission", said):
        return IKESilentError(_silence(said))
    return IPsecError("The IKE negotiation failed for a reason that only pluto's log tells.")


_SENT_ONCE_ANSWERED = re.compile(r"sent (?:IKE_AUTH request|Main Mode I\d|Quick Mode request)")
"""Of IKEv2, and of IKEv1, where whack tells of no refusal."""


def _silence(said: str) -> str:
    """Return what to say of requests without an answer, by the last of them."""
    answered = _SENT_ONCE_ANSWERED.search(said) is not None
    if "COOKIE" in said and not answered:
        return BUSY
    if not answered:
        return NO_ANSWER
    floated = re.search(r"sent IKE_AUTH request to \S+:4500\b", said)
    return NO_ANSWER_ON_4500 if floated else HALF_AN_ANSWER


_FAILURES = (
    (
        r"AUTHENTICATION_FAILED|authentication failed|PPK.*(?:not|required)",
        (
            "Target and this machine do not authenticate each other (AUTHENTICATION_FAILED):"
            " the keys of the two ends differ; connect again for fresh ones."
        ),
    ),
    (
        r"NO_PROPOSAL_CHOSEN|TS_UNACCEPTABLE|INVALID_KE_PAYLOAD",
        (
            "Target accepts none of the proposed algorithms, or knows no such tunnel"
            " (NO_PROPOSAL_CHOSEN); connect again, and ask its operator if that does not help."
        ),
    ),
)
