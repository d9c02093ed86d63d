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

import msgspec

from carnet.ipsec.forsaken import is_clean
from carnet.ipsec.iproute import ip
from carnet.ipsec.libreswan_conf import Head
from carnet.ipsec.spec import Role

_REQIDS = range(1 << 14, 1 << 30)
"""The request ids that pluto gives out; smaller are those of others, larger those of ours
that tie AH and ESP together (carnet.ipsec.strongswan_parts)."""

_SA = re.compile(
    r"^src (?P<src>\S+) dst (?P<dst>[^\s\\]+).*?proto (?P<proto>esp|ah) spi 0x(?P<spi>[0-9a-f]+)"
    r".*? reqid (?P<reqid>\d+)"
)
_ADDED = re.compile(r"\sadd (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\s")
"""When, of an SA, where statistics are listed."""
_POLICY = re.compile(
    r"^src (?P<source>\S+) dst (?P<destination>\S+).*?dir (?P<direction>in|out|fwd) "
    r".*?proto (?:esp|ah) .*?reqid (?P<reqid>\d+) mode (?P<mode>\w+)"
)
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
    listed = ip("-s", "-o", "xfrm", "state", "list", "nokeys").stdout
    _delete(
        sa
        for sa in _sas(listed.splitlines())
        if int(sa["spi"], 16) not in known
        and (added := _ADDED.search(sa.string))
        and datetime.fromisoformat(added[1]).timestamp() < started
    )


class _Policy(msgspec.Struct, frozen=True):
    source: str
    destination: str
    direction: str
    reqid: int
    mode: str

    @property
    def ends(self) -> tuple[str, str]:
        """What it is for, in CIDR notation: here and there."""
        both = str(ip_network(self.source)), str(ip_network(self.destination))
        return both if self.direction == "out" else both[::-1]

    def serves(self, head: Head) -> bool:
        """Tell whether it is of a tunnel; between two hosts a Target's may be of another peer's."""
        here, there = self.ends
        if head.role is Role.TARGET and head.virtual_address is not None:
            return there in _shown([head.virtual_address])
        if head.virtual_address is not None:
            return here in _shown([head.virtual_address]) and there in _shown(head.networks)
        return self.mode == "transport" and (not head.targets or there in _shown(head.targets))


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

    listed = ip("-o", "xfrm", "state", "list", "nokeys").stdout.splitlines()
    _delete(filter(is_ours, _sas(listed)))
    return is_clean(
        lambda lines: any(map(is_ours, _sas(lines))),
        lambda lines: any(each.serves(head) for each in _policies(lines)),
    )


def remove_policies(head: Head) -> set[int]:
    """Take out the policies of a tunnel; return their request ids."""
    ours = [each for each in _policies(_listed_policies()) if each.serves(head)]
    lines = [
        f"xfrm policy delete src {each.source} dst {each.destination} dir {each.direction}\n"
        for each in ours
    ]
    if lines:
        ip("-force", "-batch", "-", said="".join(lines))  # as in _delete()
    return {each.reqid for each in ours}


def _listed_policies() -> list[str]:
    return ip("-o", "xfrm", "policy", "list").stdout.splitlines()


def _ends(sa: re.Match[str]) -> set[str]:
    return _shown([sa["src"], sa["dst"]])


def _policies(lines: Iterable[str]) -> list[_Policy]:
    """Return those of pluto's among the policies."""
    return [
        _Policy(
            source=found["source"],
            destination=found["destination"],
            direction=found["direction"],
            reqid=int(found["reqid"]),
            mode=found["mode"],
        )
        for found in map(_POLICY.match, lines)
        if found and int(found["reqid"]) in _REQIDS
    ]


def _sas(lines: Iterable[str]) -> list[re.Match[str]]:
    """Return those of pluto's among the SAs."""
    return [sa for sa in map(_SA.match, lines) if sa and int(sa["reqid"]) in _REQIDS]


def _delete(sas: Iterable[re.Match[str]]) -> None:
    lines = [
        "xfrm state delete src {src} dst {dst} proto {proto} spi 0x{spi}\n".format(**sa.groupdict())
        for sa in sas
    ]
    if lines:
        # Goes on after a line that fails: what somebody else has removed is no error.
        ip("-force", "-batch", "-", said="".join(lines))


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
