"""A driver that shows what its implementation would be told, and runs nothing.

For implementations that no machine of ours has: what they are told can be checked, what
they then do cannot.
"""
# ruff: noqa: ARG002 -- the names are those of Driver, and nothing is done with them.

from collections.abc import Iterator
from typing import NoReturn

from carnet.errors import IPsecError
from carnet.ipsec.driver import Capabilities, Keep, TunnelEvent, TunnelStatus
from carnet.ipsec.spec import TunnelSpec


class RenderingDriver:
    """All of Driver but render(): whatever would touch the system raises IPsecError."""

    name = ""

    def __init__(self, socket: object = None) -> None:
        """Take a socket as every driver does; there is none."""

    def answers(self) -> bool:
        """Tell that it carries no tunnels."""
        return False

    def capabilities(self) -> Capabilities:
        """Raise IPsecError: it carries nothing."""
        self._refuse()

    def install(self, spec: TunnelSpec) -> None:
        """Raise IPsecError."""
        self._refuse()

    def up(self, spec: TunnelSpec) -> TunnelStatus:
        """Raise IPsecError."""
        self._refuse()

    def confirm(self, spec: TunnelSpec) -> TunnelStatus:
        """Raise IPsecError."""
        self._refuse()

    def forget_secrets(self, name: str) -> None:
        """Raise IPsecError."""
        self._refuse()

    def down(self, name: str) -> None:
        """Raise IPsecError."""
        self._refuse()

    def status(self) -> list[TunnelStatus]:
        """Raise IPsecError."""
        self._refuse()

    def installed(self) -> frozenset[str]:
        """Raise IPsecError."""
        self._refuse()

    def remembered(self) -> frozenset[str]:
        """Raise IPsecError."""
        self._refuse()

    def sweep(self, keep: Keep) -> list[str]:
        """Raise IPsecError."""
        self._refuse()

    def watch(self) -> Iterator[TunnelEvent]:
        """Raise IPsecError."""
        self._refuse()

    def close(self) -> None:
        """End nothing: nothing is watched."""

    def _refuse(self) -> NoReturn:
        raise IPsecError(
            f"Carnet shows what {self.name} is told and does not drive it;"
            f" look at it with `carnet connect --dry-run --driver {self.name}`."
        )
