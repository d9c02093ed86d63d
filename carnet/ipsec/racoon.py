"""racoon, the IKEv1 daemon of FreeBSD's KAME: what it would be told."""

from carnet.ipsec.racoon_files import DIRECTORY, MASK, files, removal
from carnet.ipsec.rendered import RenderingDriver
from carnet.ipsec.spec import TunnelSpec

EXAMPLE_ADDRESS = {4: "192.0.2.77", 6: "2001:db8:1::77"}
"""What stands for this machine's address: of those that documents use."""


class Racoon(RenderingDriver):
    """racoon.conf, psk.txt and the policies for setkey, for a look at them."""

    name = "racoon"

    def render(self, spec: TunnelSpec) -> str:
        """Show the files and commands of a tunnel, the key masked.

        Raises IPsecError if racoon cannot carry it.
        """
        version = 6 if ":" in (spec.remote_addresses or ("",))[0] else 4
        here = EXAMPLE_ADDRESS[version]
        shown = files(spec, here, MASK)
        parts = {
            f"{DIRECTORY}/racoon.conf": shown.racoon_conf,
            f"{DIRECTORY}/psk.txt": shown.psk_txt,
            "setkey -c, at the beginning": _address(spec, "alias") + shown.setkey,
            "setkey -c, at the end": removal(spec, here) + _address(spec, "-alias"),
        }
        return "\n".join(f"# {title}\n{text}" for title, text in parts.items())


def _address(spec: TunnelSpec, what: str) -> str:
    """Return how the virtual address comes and goes: racoon does not see to it."""
    if spec.virtual_address is None:
        return ""
    family, length = ("inet6", 128) if ":" in spec.virtual_address else ("inet", 32)
    return f"# ifconfig lo0 {family} {spec.virtual_address}/{length} {what}\n"
