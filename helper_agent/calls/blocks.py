"""Holding packets back for a tunnel, and letting them go."""

from carnet.ipsec import block
from carnet.ipsec.helper import messages as said
from helper_agent.claims import Holding, held
from helper_agent.limits import check_block
from helper_agent.parts import Parts


def close(parts: Parts, uid: int, call: said.Close) -> object:
    """Hold packets back for a tunnel that is the caller's from now on."""
    check_block(call.block, parts.config)
    userspace = parts.driver.capabilities().userspace
    facts = {name: getattr(call.block, name) for name in said.Block.__struct_fields__}
    wanted = held(call.block)
    holding = Holding(uid, blocks=(wanted,), made_by=block.filter_name())
    with parts.names.claimed(call.block.name, holding):
        parts.name_servers.look(call.block.name)
        block.close(block.Closed(**facts, userspace=userspace))
        parts.owners.settle(call.block.name, wanted)
    return None


def lift(parts: Parts, uid: int, call: said.Lift) -> object:
    """Take a block out that is hers."""
    if parts.owners.owns(uid, call.name):
        parts.name_servers.restore_unless_it_stands(call.name)
        block.lift(call.name, parts.owners.block(call.name))
        parts.names.sweep()
    return None
