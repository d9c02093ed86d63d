"""What a Libreswan daemon that was killed leaves in the kernel: its SAs, keys and all.

The next one flushes the policies as it starts, and leaves alone the SAs, of which no
daemon knows any more, and which the kernel keeps for ever.
"""

import os
import re
import time
from datetime import datetime
from pathlib import Path

from carnet.ipsec.iproute import ip

_REQIDS = range(1 << 14, 1 << 30)
"""The request ids that pluto gives out; smaller are those of others, larger those of ours
that tie AH and ESP together (carnet.ipsec.strongswan_parts)."""

_SA = re.compile(
    r"^src (?P<src>\S+) dst (?P<dst>[^\s\\]+).*?proto (?P<proto>esp|ah) spi 0x(?P<spi>[0-9a-f]+)"
    r".*? reqid (?P<reqid>\d+).*?\sadd (?P<added>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\s"
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
    lines = [
        "xfrm state delete src {src} dst {dst} proto {proto} spi 0x{spi}\n".format(**sa.groupdict())
        for sa in map(_SA.match, listed.splitlines())
        if sa and int(sa["reqid"]) in _REQIDS and int(sa["spi"], 16) not in known
        if datetime.fromisoformat(sa["added"]).timestamp() < started
    ]
    if lines:
        # Goes on after a line that fails: what somebody else has removed is no error.
        ip("-force", "-batch", "-", said="".join(lines))


def _start_of(process: int) -> int:
    """Return when a process began, in whole seconds since 1970, as the kernel counts for SAs.

    Not by `btime` of /proc/stat: that is cut to whole seconds too, and one second more
    of what a killed daemon left would count as its successor's.
    """
    after_name = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    ticks = int(after_name[19])  # proc(5): starttime, the 22nd field; the name is the second
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return int(boot + ticks / os.sysconf("SC_CLK_TCK"))
