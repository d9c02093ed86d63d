"""What is only asked, and changes nothing."""

from carnet.ipsec import block
from carnet.ipsec.helper import messages as said
from helper_agent.parts import Parts


def capabilities(parts: Parts, _: int, __: said.Capabilities) -> object:
    """Tell what daemon and kernel can carry."""
    return parts.driver.capabilities()


def resumes(parts: Parts, _: int, __: said.Resumes) -> object:
    """Tell whether tunnels here can be negotiated anew at all."""
    return parts.driver.resumes


def resumable(parts: Parts, uid: int, _: said.Resumable) -> object:
    """Name what is hers and can be negotiated anew."""
    return [each for each in parts.driver.resumable() if parts.owners.owns(uid, each)]


def status(parts: Parts, uid: int, _: said.Status) -> object:
    """Report what is hers."""
    return [each for each in parts.driver.status() if parts.owners.owns(uid, each.name)]


def installed(parts: Parts, uid: int, _: said.Installed) -> object:
    """Name what is hers."""
    return [each for each in parts.driver.installed() if parts.owners.owns(uid, each)]


def remembered(parts: Parts, uid: int, _: said.Remembered) -> object:
    """Name what is hers and the daemon itself has something of."""
    return [each for each in parts.driver.remembered() if parts.owners.owns(uid, each)]


def works(_: Parts, __: int, ___: said.Works) -> object:
    """Tell whether there is a packet filter."""
    return block.is_possible()


def names(parts: Parts, uid: int, _: said.Names) -> object:
    """Name the blocks that are hers."""
    return [each for each in parts.names.blocks() if parts.owners.owns(uid, each)]


def whose(parts: Parts, uid: int, _: said.Whose) -> object:
    """Name the tunnel whose name servers are used, if it is hers."""
    using = parts.inside.whose_servers()
    return using if using and parts.owners.owns(uid, using) else None
