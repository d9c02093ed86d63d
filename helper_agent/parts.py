"""What the calls need of the helper."""

from dataclasses import dataclass

from carnet.ipsec.driver import Driver
from carnet.ipsec.inside import Inside
from helper_agent.config import HelperConfig
from helper_agent.guard import Guard
from helper_agent.inner import Inner
from helper_agent.name_servers import Servers
from helper_agent.names import Names
from helper_agent.negotiating import Negotiating
from helper_agent.owners import Owners
from helper_agent.virtual import Virtual


@dataclass(frozen=True)
class Parts:
    """The parts of one running helper."""

    config: HelperConfig
    driver: Driver
    owners: Owners
    inside: Inside
    virtual: Virtual
    inner: Inner
    names: Names
    name_servers: Servers
    guard: Guard
    negotiating: Negotiating
