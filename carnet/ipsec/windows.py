"""Windows' own IPsec: what PowerShell would be told."""

from carnet.ipsec.rendered import RenderingDriver
from carnet.ipsec.spec import TunnelSpec
from carnet.ipsec.windows_script import address_removal, beginning, ending, sweeping


class Windows(RenderingDriver):
    """The scripts of a tunnel's beginning and end, for a look at them."""

    name = "windows"

    def render(self, spec: TunnelSpec) -> str:
        """Show the scripts; there is no secret in them: the key comes by standard input.

        Raises IPsecError if Windows cannot carry the tunnel.
        """
        last = address_removal(spec.virtual_address) if spec.virtual_address else ""
        parts = {
            "when the program starts": sweeping(),
            "at the beginning; the pre-shared key (hidden) comes by standard input": beginning(
                spec
            ),
            "at the end": ending(spec.name) + last,
        }
        return "\n".join(f"# {title}\n{text}" for title, text in parts.items())
