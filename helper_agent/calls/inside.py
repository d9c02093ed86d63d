"""What this machine is told of the inside of a tunnel: how long packets are, and name servers."""

from carnet.errors import IPsecError
from carnet.ipsec.driver import Routing
from carnet.ipsec.helper import messages as said
from helper_agent.guard import is_installed
from helper_agent.owners import NOT_HERS
from helper_agent.parts import Parts


def fit(parts: Parts, uid: int, call: said.Fit) -> object:
    """Have packets for what is hers as short as she says, where it stands as it was installed.

    The routes are found by the address inside, which her Target may assign her as it likes.
    """
    leads = parts.owners.installed(uid, call.name)
    if leads is None or leads.virtual_address is None:
        return None
    for live in parts.driver.status():
        if live.name == call.name and is_installed(live, leads):
            peers = {live.remote_address}
            parts.inside.fit(call.name, leads.virtual_address, call.mtu, peers, leads.networks)
    return None


def lead_again(parts: Parts, uid: int, call: said.LeadAgain) -> object:
    """Set the routes into what is hers that are gone, where it stands as it was installed."""
    leads = parts.owners.installed(uid, call.name)
    if leads is None or not isinstance(parts.driver, Routing):
        return None
    if any(each.name == call.name and is_installed(each, leads) for each in parts.driver.status()):
        parts.driver.lead_again(call.name)
    return None


def servers(parts: Parts, uid: int, call: said.Servers) -> object:
    """Have all of this machine's names looked up in what is hers, where that may be."""
    if not parts.owners.owns(uid, call.name):
        raise IPsecError(NOT_HERS)
    with parts.names.turn(call.name):
        return parts.name_servers.use(uid, call.name, call.servers)


def follow(parts: Parts, uid: int, call: said.Follow) -> object:
    """Have the name servers of what is hers go with it."""
    if parts.owners.owns(uid, call.name):
        with parts.names.turn(call.name):
            parts.name_servers.follow(call.name)
    return None


def restore(parts: Parts, uid: int, call: said.Restore) -> object:
    """Take the name servers of what is hers away."""
    if not parts.owners.owns(uid, call.name):
        return False
    restored = parts.name_servers.restore(call.name)
    parts.names.sweep()
    return restored
