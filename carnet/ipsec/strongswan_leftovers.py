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
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec

from carnet.errors import IPsecError
from carnet.ipsec import bundle, inner_address, xfrm
from carnet.ipsec.driver import Lead
from carnet.ipsec.forsaken import is_clean
from carnet.ipsec.inner_address import CHARON_TABLE
from carnet.ipsec.iproute import force, ip
from carnet.ipsec.spec import Role
from carnet.ipsec.strongswan_parts import is_of_client, reqids
from carnet.ipsec.strongswan_theirs import NOTHING, Theirs, kernel_sas
from carnet.ipsec.xfrm import Policy

Pairs = Callable[[], Collection[tuple[str, str]]]
"""Asks the daemon between which addresses it has IKE_SAs: this machine's, and the peer's."""

Others = Callable[[], Collection[Lead]]
"""Asks the daemon where all its other tunnels lead."""

Kept = Callable[[], Theirs]
"""Asks the daemon what it has of all other tunnels: no request id makes that anybody's leftover."""

_NOBODYS_MARK = "0/0x80000000"
"""That of carnet.ipsec.strongswan_messages, as `ip` shows it."""


class _Route(msgspec.Struct, frozen=True):
    destination: str
    interface: str
    source: str
    table: str
    protocol: str

    def serves(self, policy: Policy) -> bool:
        """Whether it leads packets to an outgoing policy."""
        within = ip_address(self.source) in ip_network(policy.source)
        return policy.direction == "out" and self.destination == policy.destination and within


def remove(
    name: str,
    standing: Pairs | None = None,
    others: Others = lambda: (),
    theirs: Kept = lambda: NOTHING,
) -> None:
    """Take out what is left of a tunnel of which the daemon has no connection.

    So, too, whatever is left between two hosts without an IKE_SA, if `standing` can be asked:
    whose that was, nothing tells. An address that one of `others` has by now stays, and so does
    what is `theirs` by the daemon, whatever its request id.
    """
    if shutil.which("ip") is None:
        return  # then nobody has made any
    policies, doomed = xfrm.policies(xfrm.list_policies().stdout.splitlines()), reqids(name)
    found = [each for each in policies if each.reqid in doomed]
    kept = theirs() if found else NOTHING
    ours = [each for each in found if not kept.has_policy(each)]
    routes = _routes() if ours else []
    addresses = {each for policy in ours for each in _addresses(policy, routes)}
    lines = [line for policy in ours for line in _deletions(policy, routes)]
    lines += [line for policy in _forsaken(policies, standing) for line in _by_mark(policy)]
    led = inner_address.led_from(addresses)
    _run(lines)
    remove_sas(name, theirs)
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
    doomed = reqids(name)
    _remove_begun(doomed)
    remove(name, lambda: ())
    # Last, so that nothing of it leaves in clear while an SA of it is left.
    with suppress(IPsecError):  # if it keeps some, that is seen below
        bundle.remove(doomed[0], lambda: ())
    return is_clean(
        lambda sas: any(int(sa["reqid"]) in doomed for sa in xfrm.sas(sas)),
        lambda policies: any(
            each.reqid in doomed or each.mark == _NOBODYS_MARK for each in xfrm.policies(policies)
        ),
    )


def remove_sas(name: str, theirs: Kept = lambda: NOTHING) -> None:
    """Take out the SAs of a tunnel whose request ids are made of its name, but for `theirs`."""
    doomed = reqids(name)
    listed = xfrm.sas(xfrm.list_sas().stdout.splitlines())
    found = [sa for sa in listed if int(sa["reqid"]) in doomed]
    kept = theirs() if found else NOTHING
    xfrm.delete_sas(sa for sa in found if not kept.has_sa(sa))


def _remove_begun(reqids: Collection[int]) -> None:
    """Take out the SAs that nobody ends the negotiation of, between the same hosts as those.

    They have no request id yet, and no key.
    """
    if shutil.which("ip") is None:
        return
    listed = xfrm.sas(xfrm.list_sas().stdout.splitlines())
    hosts = {_between(sa) for sa in listed if int(sa["reqid"]) in reqids}
    xfrm.delete_sas(sa for sa in listed if sa["reqid"] == "0" and _between(sa) in hosts)


def _between(sa: re.Match[str]) -> tuple[str, str]:
    return sa["src"], sa["dst"]


def remove_listed(ike_sas: Iterable[Mapping[str, Any]]) -> None:
    """Take out the SAs of IKE_SAs that the daemon lists, before it does itself."""
    lines = [
        f"xfrm state delete src {source} dst {destination} proto {protocol} spi 0x{spi}"
        for source, destination, protocol, spi in kernel_sas(ike_sas)
    ]
    if lines and shutil.which("ip") is not None:
        force(lines)


def _run(lines: Iterable[str]) -> None:
    for line in lines:
        # What somebody else has removed is no error. No batch: there `ip` keeps what one
        # `deleteall` was limited to for the next.
        ip(*line.split())


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


def _addresses(policy: Policy, routes: list[_Route]) -> set[str]:
    """Return the Client's address inside, where this is an outgoing policy of hers.

    Whether it is tells the request id, or with AH and ESP the route.
    """
    if policy.direction != "out" or ip_network(policy.source).num_addresses != 1:
        return set()
    protocol = str(bundle.ROUTE_PROTOCOL[Role.CLIENT])
    if _is_tied(policy):
        return {each.source for each in routes if each.serves(policy) and each.protocol == protocol}
    return {_address(policy.source)} if is_of_client(policy.reqid) else set()


def _deletions(policy: Policy, routes: list[_Route]) -> Iterable[str]:
    if _is_tied(policy):
        return
    yield xfrm.deletion(policy)
    for route in routes:
        if route.serves(policy) and route.table == CHARON_TABLE:
            yield f"route delete {route.destination} table {CHARON_TABLE} dev {route.interface}"


def _forsaken(policies: list[Policy], standing: Pairs | None) -> list[Policy]:
    """Return the policies between two hosts that have no IKE_SA; asked once all are listed."""
    marked = [each for each in policies if each.mark == _NOBODYS_MARK]
    pairs = standing() if marked and standing else None
    return [] if pairs is None else [each for each in marked if _hosts(each) not in pairs]


def _by_mark(policy: Policy) -> Iterable[str]:
    """Yield what removes a policy whose mark `delete` cannot name, and the SAs of its direction.

    An operator's own for the same hosts stays: `deleteall` is limited to the index of ours.
    """
    for index in xfrm.indices(policy):
        yield f"xfrm policy deleteall {policy.selector} index {index}"
    source, destination = _address(policy.source), _address(policy.destination)
    yield f"xfrm state deleteall src {source} dst {destination} reqid {policy.reqid}"


def _is_tied(policy: Policy) -> bool:
    """Whether it is one of carnet.ipsec.bundle, which takes it away itself."""
    return policy.priority == bundle.PRIORITY


def _hosts(policy: Policy) -> tuple[str, str]:
    """Return, of one in transport mode, the addresses of this machine and of the peer."""
    here, there = policy.ends
    return _address(here), _address(there)


def _address(selector: str) -> str:
    return selector.partition("/")[0]
