"""What a Host takes over of its configuration while it serves; no request is dropped.

Requests that are on their way go on with what they began with.
"""

import ssl
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from carnet.reloading import differing, renew_certificate
from carnet.wire.suites import numbers_of
from host_agent.accounts import follow_all
from host_agent.admission import Admission
from host_agent.config import HostConfig
from host_agent.revoked_tunnels import end_all_revoked

if TYPE_CHECKING:
    from host_agent.server import HostService

_NEEDS_START = (
    "name", "listen", "port", "directory", "key_database", "officer", "token", "interface",
    "observation",
)  # fmt: skip


def follow_targets(service: "HostService", targets: tuple[str, ...]) -> None:
    """Ask these Targets, and no others, for tunnels that ended, and have revoked ones ended."""
    database, link = service.parts.database, service.parts.link
    background = service.background
    keep = background.keep
    background.start("ended tunnels", partial(follow_all, database, link, targets, keep))
    background.start("revoked tunnels", partial(end_all_revoked, database, link, targets, keep))


class Reloading:
    """What takes a configuration over."""

    def __init__(
        self,
        config: HostConfig,
        load: Callable[[], HostConfig],
        service: "HostService",
        context: ssl.SSLContext,
    ) -> None:
        self._started = self._config = config
        self._authority = config.link.authority.read_bytes()
        self._load, self._service, self._context = load, service, context

    def take_over(self) -> list[str]:
        """Read it again; return what needs a start anew. Raises UsageError."""
        old, new, parts = self._config, self._load(), self._service.parts
        renew_certificate(self._context, new.link, "host", self._started.name)
        parts.link.targets = new.targets
        admission = parts.admission if new.limits == old.limits else Admission(new.limits)
        suites = numbers_of(new.suites)
        self._service.parts = replace(parts, admission=admission, suites=suites)
        if new.targets.keys() != old.targets.keys():
            follow_targets(self._service, tuple(new.targets))
        self._config = new
        return self._needs_start(self._started, new)

    def _needs_start(self, old: HostConfig, new: HostConfig) -> list[str]:
        """Return what differs from what is in use; the door is not built anew, for one."""
        found = differing(old, new, _NEEDS_START)
        found += differing(old.limits, new.limits, ("connections", "connections_per_address"))
        if new.link.authority.read_bytes() != self._authority:
            found.append("link.authority")
        return found
