"""What a charon that was killed leaves in the kernel: SAs, policies, routes, the address inside.

The next one knows nothing of it and takes nothing away: only strongSwan's older starter
flushes as it begins. So the SAs would stay until the kernel's own limit, keys and all, and the
policies for ever: packets would be led to a tunnel that is none. In tunnel mode it is found by
the request ids, which are made of the tunnel's name; in transport mode a policy has no other
sign of ours than its mark.
"""

import json
import re
import shutil
from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address, ip_network

import msgspec

from carnet.ipsec import bundle, inner_address
from carnet.ipsec.driver import Lead
from carnet.ipsec.forsaken import is_clean
from carnet.ipsec.inner_address import CHARON_TABLE
from carnet.ipsec.iproute import ip
from carnet.ipsec.spec import Role
from carnet.ipsec.strongswan_parts import is_of_client, reqids

Pairs = Callable[[], Collection[tuple[str, str]]]
"""Asks the daemon between which addresses it has IKE_SAs: this machine's, and the peer's."""

Others = Callable[[], Collection[Lead]]
"""Asks the daemon where all its other tunnels lead."""

_NOBODYS_MARK = "mark 0/0x80000000"
"""That of carnet.ipsec.strongswan_messages, as `ip` shows it."""

_POLICY = re.compile(
    r"^src (?P<source>\S+) dst (?P<destination>\S+).*?dir (?P<direction>in|out|fwd) "
    r"priority (?P<priority>\d+)(?P<rest>.*?)proto (?:esp|ah) .*?reqid (?P<reqid>\d+)"
)

_SA = re.compile(
    r"^src (?P<src>\S+) dst (?P<dst>[^\s\\]+).*?proto (?P<proto>\S+) spi (?P<spi>0x[0-9a-f]+)"
    r".*? reqid (?P<reqid>\d+) "
)


class _Policy(msgspec.Struct, frozen=True):
    source: str
    destination: str
    direction: str
    reqid: int
    marked: bool
    tied: bool
    """Whether it is one of carnet.ipsec.bundle, which takes it away itself."""

    @property
    def selector(self) -> str:
        return f"src {self.source} dst {self.destination} dir {self.direction}"

    @property
    def ends(self) -> tuple[str, str]:
        """In transport mode the addresses of this machine and of the peer."""
        both = _address(self.source), _address(self.destination)
        return both if self.direction == "out" else both[::-1]


class _Route(msgspec.Struct, frozen=True):
    destination: str
    interface: str
    source: str
    table: str
    protocol: str

    def serves(self, policy: _Policy) -> bool:
        """Whether it leads packets to an outgoing policy."""
        within = ip_address(self.source) in ip_network(policy.source)
        return policy.direction == "out" and self.destination == policy.destination and within


def remove(name: str, standing: Pairs | None = None, others: Others = lambda: ()) -> None:
    """Take out what is left of a tunnel of which the daemon has no connection.

    So, too, whatever is left between two hosts without an IKE_SA, if `standing` can be asked:
    whose that was, nothing tells. An address that one of `others` has by now stays.
    """
    if shutil.which("ip") is None:
        return  # then nobody has made any
    policies, doomed = _policies(), reqids(name)
    ours = [each for each in policies if each.reqid in doomed]
    routes = _routes() if ours else []
    addresses = {each for policy in ours for each in _addresses(policy, routes)}
    lines = [line for policy in ours for line in _deletions(policy, routes)]
    lines += [line for policy in _forsaken(policies, standing) for line in _by_mark(policy)]
    led = inner_address.led_from(addresses)
    _run(lines)
    remove_sas(name)
    leads = others() if addresses else ()
    for address in addresses:
        is_shared = any(address in each.inner for each in leads)
        # Its policies tell that it was set; where, nothing does once its routes went with a link.
        at = led.get(address) or inner_address.interfaces_of(address)
        inner_address.remove(address, leads, () if is_shared else at)


def take_out(name: str) -> bool:
    """Take out what a daemon that is gone has left of a tunnel; tell whether none of it is left.

    So, too, of every tunnel between two hosts: all have lost their IKE_SA with it.
    """
    remove(name, lambda: ())
    doomed = reqids(name)
    return is_clean(
        lambda sas: any(int(sa["reqid"]) in doomed for sa in map(_SA.match, sas) if sa),
        lambda policies: any(_NOBODYS_MARK in each for each in policies),
    )


def remove_sas(name: str) -> None:
    """Take out the SAs of a tunnel whose request ids are made of its name."""
    doomed = reqids(name)
    listed = ip("-o", "xfrm", "state", "list", "nokeys").stdout
    lines = [
        "xfrm state delete src {src} dst {dst} proto {proto} spi {spi}\n".format(**sa.groupdict())
        for sa in map(_SA.match, listed.splitlines())
        if sa and int(sa["reqid"]) in doomed
    ]
    if lines:
        # Goes on after a line that fails: what somebody else has removed is no error.
        ip("-force", "-batch", "-", said="".join(lines))


def _run(lines: Iterable[str]) -> None:
    for line in lines:
        # What somebody else has removed is no error. No batch: there `ip` keeps what one
        # `deleteall` was limited to for the next.
        ip(*line.split())


def _policies() -> list[_Policy]:
    listed = ip("-o", "xfrm", "policy", "list").stdout.splitlines()
    return [
        _Policy(
            source=found["source"],
            destination=found["destination"],
            direction=found["direction"],
            reqid=int(found["reqid"]),
            marked=_NOBODYS_MARK in found["rest"],
            tied=int(found["priority"]) == bundle.PRIORITY,
        )
        for found in map(_POLICY.match, listed)
        if found
    ]


def _routes() -> list[_Route]:
    """Return the routes that have a source address of their own."""
    found = []
    for family, everything in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        listed = ip("-json", "-N", family, "route", "show", "table", "all").stdout
        found += [
            _Route(
                destination=str(ip_network(each["dst"].replace("default", everything))),
                interface=each["dev"],
                source=each["prefsrc"],
                table=str(each.get("table")),
                protocol=str(each.get("protocol")),
            )
            for each in json.loads(listed or "[]")
            if "prefsrc" in each and "dev" in each
        ]
    return found


def _addresses(policy: _Policy, routes: list[_Route]) -> set[str]:
    """Return the Client's address inside, where this is an outgoing policy of hers.

    Whether it is tells the request id, or with AH and ESP the route.
    """
    if policy.direction != "out" or ip_network(policy.source).num_addresses != 1:
        return set()
    protocol = str(bundle.ROUTE_PROTOCOL[Role.CLIENT])
    if policy.tied:
        return {each.source for each in routes if each.serves(policy) and each.protocol == protocol}
    return {_address(policy.source)} if is_of_client(policy.reqid) else set()


def _deletions(policy: _Policy, routes: list[_Route]) -> Iterable[str]:
    if policy.tied:
        return
    yield f"xfrm policy delete {policy.selector}"
    for route in routes:
        if route.serves(policy) and route.table == CHARON_TABLE:
            yield f"route delete {route.destination} table {CHARON_TABLE} dev {route.interface}"


def _forsaken(policies: list[_Policy], standing: Pairs | None) -> list[_Policy]:
    """Return the policies between two hosts that have no IKE_SA; asked once all are listed."""
    marked = [each for each in policies if each.marked]
    pairs = standing() if marked and standing else None
    return [] if pairs is None else [each for each in marked if each.ends not in pairs]


def _by_mark(policy: _Policy) -> Iterable[str]:
    """Yield what removes a policy whose mark `delete` cannot name, and the SAs of its direction."""
    yield f"xfrm policy deleteall {policy.selector}"
    source, destination = _address(policy.source), _address(policy.destination)
    yield f"xfrm state deleteall src {source} dst {destination} reqid {policy.reqid}"


def _address(selector: str) -> str:
    return selector.partition("/")[0]
