"""What a tunnel can leave behind on a machine: all of it, to be compared before and after."""

import re

from carnet.ipsec.vici_link import open_session, text
from lab.charon import Charon

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


def machine_state(charon: Charon) -> list[str]:
    """Return all of a machine's network configuration, and what its charon knows, in lines."""
    found = charon.machine.run(["sh", "-c", f"exec 2>&1\n{_SCRIPT}"]).stdout
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
