"""This machine's own addresses, as its kernel has them."""

import json
import subprocess

from carnet.errors import IPsecError


def own_addresses() -> frozenset[str]:
    """Return the addresses of all interfaces. Raises IPsecError."""
    try:
        done = subprocess.run(["ip", "-json", "addr"], capture_output=True, text=True, check=True)
        links = json.loads(done.stdout)
        return frozenset(each["local"] for link in links for each in link.get("addr_info", ()))
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError) as error:
        raise IPsecError(
            "The addresses of this machine cannot be listed; install iproute2."
        ) from error
