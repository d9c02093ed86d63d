"""The head of the Target's accounts, signed with the key of the Host-Target link.

A Target has no token; the link's key is what it is known by.
"""

from sqlalchemy import Engine

from carnet.audit.keeper import HeadKeeper
from carnet.wire.documents import AccountsHead, sign_document
from target_agent.config import TargetConfig
from target_agent.link_key import load_signer
from target_agent.schema import audit, audit_heads


def head_keeper(config: TargetConfig, engine: Engine) -> HeadKeeper:
    """Return what signs this Target's accounts; raises UsageError if the key cannot be read."""
    signer = load_signer(config.link)

    async def sign(head: AccountsHead) -> bytes:
        return sign_document(head, signer.sign)

    return HeadKeeper(engine, audit, audit_heads, config.name, sign)
