"""What a tunnel can leave behind on a machine: all of it, to be compared before and after."""

import re

from carnet.ipsec.libreswan_tools import Tools
from carnet.ipsec.vici_link import open_session, text
from lab.charon import Charon
from lab.pluto import Pluto

_SCRIPT = """\
echo '== IPsec, addresses and interfaces'
ip -batch - <<'END'
addr
link
xfrm state
END
ip xfrm policy
for version in 4 6; do
echo "== IPv$version"
ip -$version -batch - <<'END'
rule
route show table all
END
done
echo '== packet filters'
nft list ruleset
iptables-legacy-save
ip6tables-legacy-save
echo '== name servers'
cat /etc/resolv.conf
"""
"""Few programs: starting one is what takes long in a guest kernel. Listing SAs or policies ends
a batch."""
_VOLATILE = (
    (re.compile(r"(valid_lft|preferred_lft) \w+"), ""),
    (re.compile(r"packets \d+ bytes \d+"), "packets"),
    (re.compile(r"\[\d+:\d+\]"), "[packets]"),
    (re.compile(r" expires \d+sec"), ""),
    (re.compile(r"^# .* on .*\n", re.MULTILINE), ""),
    (re.compile(r"^\*\w+\n(:[A-Z]+ ACCEPT \[packets\]\n)+COMMIT\n", re.MULTILINE), ""),
    (re.compile(r"^\d+: (?=ipsec)", re.MULTILINE), ""),
)
"""What changes by itself: remaining times, counters of packets, the time of a look, the number of
charon's device; and tables without rules, which are there once somebody has looked for some."""


_OF_A_TUNNEL = re.compile(r'^\d+ (#\d+: )?".*', re.MULTILINE)
"""A line of what Libreswan's daemon says of a connection, or of a state of one."""


def machine_state(daemon: Charon | Pluto) -> list[str]:
    """Return all of a machine's network configuration, and what its IKE daemon knows, in lines."""
    found = daemon.machine.run(["sh", "-c", f"exec 2>&1\n{_SCRIPT}"]).stdout
    for pattern, replacement in _VOLATILE:
        found = pattern.sub(replacement, found)
    known = _known_to_pluto(daemon) if isinstance(daemon, Pluto) else _known_to_charon(daemon)
    return (found + known).splitlines()


def _known_to_pluto(pluto: Pluto) -> str:
    tools = Tools(pluto.socket)
    tunnels = [each[0] for each in _OF_A_TUNNEL.finditer(tools.whack("--status"))]
    files = sorted(tools.directory.iterdir()) if tools.directory.exists() else []
    return f"== pluto\n{tunnels}\n{tools.whack('--listpsks')}\n{files}\n"


def _known_to_charon(charon: Charon) -> str:
    with open_session(charon.vici) as session:
        connections = [text(each) for each in session.list_conns()]
        sas = [text(each) for each in session.list_sas()]
        secrets = text(session.get_shared())["keys"]
        pools = sorted(session.get_pools())
    return f"== charon\n{connections}\n{sas}\n{secrets}\n{pools}\n"
