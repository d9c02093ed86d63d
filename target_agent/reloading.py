"""What a Target takes over of its configuration while it serves; no request is dropped.

Requests that are on their way, and tunnels that live, go on with what they began with.
"""

import ssl
from collections.abc import Callable

from msgspec import structs

from carnet.ipsec.driver import Driver
from carnet.reloading import check_certificate, differing, renew_certificate
from target_agent.agent import Agent
from target_agent.config import TargetConfig
from target_agent.link_key import load_link_key
from target_agent.server import Server
from target_agent.unnamed import warn_of_unnamed

_TAKEN_OVER = {"suites", "tunnels", "link"}
_AT_START = ("virtual_addresses", "virtual_addresses_v6", "block")


class Reloading:
    """What takes a configuration over."""

    def __init__(
        self,
        config: TargetConfig,
        load: Callable[[], TargetConfig],
        agent: Agent,
        driver: Driver,
        server: Server,
        context: ssl.SSLContext,
    ) -> None:
        self._config = config
        self._authority = config.link.authority.read_bytes()
        self._load, self._agent, self._driver = load, agent, driver
        self._server, self._context = server, context

    def take_over(self) -> list[str]:
        """Read it again; return what needs a start anew.

        Raises UsageError, or IPsecError if the gate does not guard its networks.
        """
        old, new = self._config, self._load()
        key = load_link_key(new.link)
        check_certificate(new.link, "target", old.name)
        kept = {name: getattr(old.tunnels, name) for name in _AT_START}
        taken = structs.replace(
            old, suites=new.suites, tunnels=structs.replace(new.tunnels, **kept), link=new.link
        )
        self._agent.renew(taken)
        renew_certificate(self._context, new.link, "target", old.name)
        self._server.key, self._config = key, taken
        warn_of_unnamed(self._driver, taken.tunnels.addresses)
        return self._needs_start(old, new)

    def _needs_start(self, old: TargetConfig, new: TargetConfig) -> list[str]:
        names = [name for name in new.__struct_fields__ if name not in _TAKEN_OVER]
        found = differing(old, new, names) + differing(old.tunnels, new.tunnels, _AT_START)
        if new.link.authority.read_bytes() != self._authority:
            found.append("link.authority")
        return found
