"""What a tunnel can leave behind on a machine: all of it, to be compared before and after."""

import re

from carnet.ipsec.vici_link import open_session, text
from lab.charon import Charon

_LOOKS = (
    *("ip xfrm state", "ip xfrm policy", "ip -4 rule", "ip -6 rule"),
    *("ip -4 route show table all", "ip -6 route show table all", "ip addr", "ip link"),
    *("nft list ruleset", "iptables-legacy -S", "iptables-legacy -t nat -S"),
    *("ip6tables-legacy -S", "ip6tables-legacy -t nat -S"),
    "cat /etc/resolv.conf",
)
_SCRIPT = "\n".join(f"echo '== {look}'; {look} 2>&1" for look in _LOOKS)
_VOLATILE = (
    (re.compile(r"(valid_lft|preferred_lft) \w+"), ""),
    (re.compile(r"packets \d+ bytes \d+"), "packets"),
    (re.compile(r" expires \d+sec"), ""),
)
"""What changes by itself: remaining times, counters of packets."""


def machine_state(charon: Charon) -> list[str]:
    """Return all of a machine's network configuration, and what its charon knows, in lines."""
    found = charon.machine.run(["sh", "-c", _SCRIPT]).stdout
    for pattern, replacement in _VOLATILE:
        found = pattern.sub(replacement, found)
    return (found + _daemon_state(charon)).splitlines()


def _daemon_state(charon: Charon) -> str:
    with open_session(charon.vici) as session:
        connections = [text(each) for each in session.list_conns()]
        sas = [text(each) for each in session.list_sas()]
        secrets = text(session.get_shared())["keys"]
        pools = sorted(session.get_pools())
    return f"== charon\n{connections}\n{sas}\n{secrets}\n{pools}\n"
