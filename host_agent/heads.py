"""The head of the Host's accounts, signed on its HSM, which remembers the newest."""

import asyncio
from functools import partial

from carnet.audit.keeper import HeadKeeper
from host_agent import schema
from host_agent.hsm import Hsm
from host_agent.keydb import KeyDatabase
from host_agent.marks import Marks


def head_keeper(name: str, database: KeyDatabase, hsm: Hsm, marks: Marks) -> HeadKeeper:
    """Return what signs a Host's accounts, at once where a record is found missing."""
    heads = HeadKeeper(
        database.engine,
        schema.audit,
        schema.audit_heads,
        name,
        hsm.sign_head,
        marks.keep,
        marks.check,
        lambda: marks.newest,
    )
    # Lest another process, which does not know it, signs first what is in its place.
    tell_now = partial(asyncio.get_running_loop().call_soon_threadsafe, heads.asked.set)
    database.newest.on_missing = tell_now
    return heads
