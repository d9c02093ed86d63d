"""What a Libreswan daemon that was killed leaves in the kernel: its SAs, keys and all.

The next one flushes the policies as it starts, unless it does not, and leaves alone the SAs, of
which no daemon knows any more, and which the kernel keeps for ever. Which of them are a tunnel's
is told by its policies: what they are for is in the head of its file, and the request id leads
from them to the SAs.
"""

import os
import re
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import datetime
from ipaddress import ip_network
from pathlib import Path

from carnet.ipsec import xfrm
from carnet.ipsec.forsaken import is_clean
from carnet.ipsec.iproute import force
from carnet.ipsec.libreswan_conf import Head
from carnet.ipsec.spec import Role
from carnet.ipsec.xfrm import Policy

_REQIDS = range(1 << 14, 1 << 30)
"""The request ids that pluto gives out; smaller are those of others, larger those of ours
that tie AH and ESP together (carnet.ipsec.strongswan_parts)."""

_ADDED = re.compile(r"\sadd (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\s")
"""When, of an SA, where statistics are listed."""
_KNOWN = re.compile(r"\b(?:esp|ah)[.:]([0-9a-f]+)@")


def sweep(daemon: int, said: str) -> None:
    """Remove the SAs that are older than the daemon with that process id, and unknown to it.

    `said` is the daemon's status. That it must not know them guards against a clock that
    was set; that they are older, against an SA that is being negotiated.
    """
    try:
        started = _start_of(daemon)
    except OSError:
        return  # Gone, or none of this PID namespace (its number is 0 then): nothing tells.
    known = {int(spi, 16) for spi in _KNOWN.findall(said)}
    xfrm.delete_sas(
        sa
        for sa in _sas(xfrm.list_sas("-s").stdout.splitlines())
        if int(sa["spi"], 16) not in known
        and (added := _ADDED.search(sa.string))
        and datetime.fromisoformat(added[1]).timestamp() < started
    )


def sweep_reserved(head: Head, said: str) -> None:
    """Remove the SAs without keys that the daemon had reserved for a Client's tunnel that is over.

    With IKEv1 it begins anew by itself what Target ends, and of a negotiation that ends before
    there are keys it leaves the SA. `said` is its status: where that names the tunnel's peer,
    another tunnel may be the one that is being negotiated.
    """
    peers = {each for each in _shown(head.targets) if each.partition("/")[0] not in said}
    xfrm.delete_sas(
        sa
        for sa in _sas(xfrm.list_sas().stdout.splitlines())
        if not (xfrm.is_keyed(sa) or peers.isdisjoint(_ends(sa)))
    )


def take_out(head: Head | None) -> bool:
    """Take out what a daemon that is gone has left of a tunnel; tell if none of it is left.

    Of a Target's between two hosts nothing tells the peer: all such go, of which none has a
    daemon. Where nothing tells which it is, that is whether there is anything of such a daemon.
    """
    if head is None:
        return is_clean(lambda lines: bool(_sas(lines)), lambda _: False)
    doomed = remove_policies(head)
    others = {each.reqid for each in _policies(_listed_policies())} - doomed
    peers = _shown(head.targets)

    def is_ours(sa: re.Match[str]) -> bool:
        """Tell by its policies, or where it has none any more, by its peer."""
        reqid = int(sa["reqid"])
        return reqid in doomed or (reqid not in others and not peers.isdisjoint(_ends(sa)))

    xfrm.delete_sas(filter(is_ours, _sas(xfrm.list_sas().stdout.splitlines())))
    return is_clean(
        lambda lines: any(map(is_ours, _sas(lines))),
        lambda lines: any(_serves(each, head) for each in _policies(lines)),
    )


def remove_policies(head: Head) -> set[int]:
    """Take out the policies of a tunnel; return their request ids."""
    ours = [each for each in _policies(_listed_policies()) if _serves(each, head)]
    force(map(xfrm.deletion, ours))
    return {each.reqid for each in ours}


def _serves(policy: Policy, head: Head) -> bool:
    """Tell whether it is of a tunnel; between two hosts a Target's may be of another peer's."""
    here, there = (str(ip_network(each)) for each in policy.ends)
    if head.role is Role.TARGET and head.virtual_address is not None:
        return there in _shown([head.virtual_address])
    if head.virtual_address is not None:
        return here in _shown([head.virtual_address]) and there in _shown(head.networks)
    return policy.mode == "transport" and (not head.targets or there in _shown(head.targets))


def _listed_policies() -> list[str]:
    return xfrm.list_policies().stdout.splitlines()


def _ends(sa: re.Match[str]) -> set[str]:
    return _shown([sa["src"], sa["dst"]])


def _policies(lines: Iterable[str]) -> list[Policy]:
    """Return those of pluto's among the policies."""
    return [each for each in xfrm.policies(lines) if each.reqid in _REQIDS]


def _sas(lines: Iterable[str]) -> list[re.Match[str]]:
    """Return those of pluto's among the SAs."""
    return [sa for sa in xfrm.sas(lines) if int(sa["reqid"]) in _REQIDS]


def _shown(networks: Collection[str]) -> set[str]:
    """Return networks, or addresses, as those of a policy are compared; names are none."""
    shown = set()
    for each in networks:
        with suppress(ValueError):
            shown.add(str(ip_network(each)))
    return shown


def _start_of(process: int) -> int:
    """Return when a process began, in whole seconds since 1970, as the kernel counts for SAs.

    Not by `btime` of /proc/stat: that is cut to whole seconds too, and one second more
    of what a killed daemon left would count as its successor's.
    """
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    ticks = int(after_name[19])  # proc(5): starttime, the 22nd field; the name is the second
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return int(boot + ticks / os.sysconf("SC_CLK_TCK"))
