"""The kernel's SAs and policies, as `ip` lists them, and what takes them out; no key is listed."""

import re
from collections.abc import Iterable

import msgspec

from carnet.ipsec.iproute import force, ip
from carnet.ipsec.programs import Done

_SA = re.compile(
    r"^src (?P<src>\S+) dst (?P<dst>[^\s\\]+).*?proto (?P<proto>esp|ah) spi 0x(?P<spi>[0-9a-f]+)"
    r".*? reqid (?P<reqid>\d+)"
)
_KEYED = re.compile(r"\s(?:auth|auth-trunc|enc|aead|comp) ")
"""An algorithm of an SA, its key left out."""
_POLICY = re.compile(
    r"^src (?P<source>\S+) dst (?P<destination>\S+).*?dir (?P<direction>in|out|fwd) "
    r"priority (?P<priority>\d+)(?P<more>.*?)tmpl src \S+ dst (?P<peer>[^\s\\]+)"
    r".*?proto (?:esp|ah) .*?reqid (?P<reqid>\d+) mode (?P<mode>\w+)"
)
_MARKED = re.compile(
    r"^src (\S+) dst (\S+) .*?dir (\w+) action \w+ index (\d+) .*?\smark (\S+) .*?reqid (\d+)"
)
"""A policy with a mark, listed with statistics."""
_MARK = re.compile(r"\smark (\S+)")


class Policy(msgspec.Struct, frozen=True):
    """One that leads packets to an SA, or lets those in that come by one."""

    source: str
    destination: str
    """Both in CIDR notation, as the kernel has them."""
    direction: str
    """`in`, `out` or `fwd`."""
    priority: int
    mark: str | None
    """Value and mask, as `ip` shows them."""
    peer: str
    """Where the packets of an outgoing one are led, in tunnel mode."""
    reqid: int
    """This, and the mode, are those of the innermost SA."""
    mode: str

    @property
    def selector(self) -> str:
        """As `ip` takes it."""
        return f"src {self.source} dst {self.destination} dir {self.direction}"

    @property
    def ends(self) -> tuple[str, str]:
        """What it is for: here and there."""
        both = self.source, self.destination
        return both if self.direction == "out" else both[::-1]


def list_sas(*options: str) -> Done:
    """Have all SAs listed, each on one line; `options` are those of `ip`."""
    return ip(*options, "-o", "xfrm", "state", "list", "nokeys")


def list_policies() -> Done:
    """Have all policies listed, each on one line."""
    return ip("-o", "xfrm", "policy", "list")


def indices(policy: Policy) -> list[str]:
    """Return the kernel's numbers of a policy with a mark: selectors and marks may be alike."""
    wanted = (policy.source, policy.destination, policy.direction, policy.mark, str(policy.reqid))
    found = map(_MARKED.match, ip("-s", "-o", "xfrm", "policy", "list").stdout.splitlines())
    return [each[4] for each in found if each and each.group(1, 2, 3, 5, 6) == wanted]


def sas(lines: Iterable[str]) -> list[re.Match[str]]:
    """Return the SAs of ESP and AH in such lines: src, dst, proto, spi (hexadecimal), reqid."""
    return [found for found in map(_SA.match, lines) if found]


def is_keyed(sa: re.Match[str]) -> bool:
    """Tell whether one of sas() carries packets: what is only asked for or reserved has no key."""
    return _KEYED.search(sa.string) is not None


def policies(lines: Iterable[str]) -> list[Policy]:
    """Return the policies of ESP and AH in such lines."""
    return [_policy(found) for found in map(_POLICY.match, lines) if found]


def _policy(found: re.Match[str]) -> Policy:
    mark = _MARK.search(found["more"])
    return Policy(
        source=found["source"],
        destination=found["destination"],
        direction=found["direction"],
        priority=int(found["priority"]),
        mark=mark[1] if mark else None,
        peer=found["peer"],
        reqid=int(found["reqid"]),
        mode=found["mode"],
    )


def delete_sas(doomed: Iterable[re.Match[str]]) -> None:
    """Take out SAs of sas()."""
    line = "xfrm state delete src {src} dst {dst} proto {proto} spi 0x{spi}"
    force(line.format(**sa.groupdict()) for sa in doomed)


def deletion(policy: Policy) -> str:
    """Return the line for `ip` that takes out a policy without a mark."""
    return f"xfrm policy delete {policy.selector}"
