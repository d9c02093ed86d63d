"""The head of the Target's accounts, signed with the key of the Host-Target link.

A Target has no token; the link's key is what it is known by.
"""

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from sqlalchemy import Engine

from carnet.audit.keeper import HeadKeeper, SignHead
from carnet.errors import TokenError, UsageError
from carnet.files import read_private
from carnet.link import LinkSection
from carnet.wire.documents import AccountsHead, sign_document
from target_agent.config import TargetConfig
from target_agent.schema import audit, audit_heads


def head_keeper(config: TargetConfig, engine: Engine) -> HeadKeeper:
    """Return what signs this Target's accounts; raises UsageError if the key cannot be read."""
    return HeadKeeper(engine, audit, audit_heads, config.name, _signer(config.link))


def _signer(link: LinkSection) -> SignHead:
    pem = read_private(link.key, "the private key of the link")
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{link.key} is no private key in PEM without a passphrase.") from error

    async def sign(head: AccountsHead) -> bytes:
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise TokenError("The link's key is not on P-256; the accounts are not signed with it.")
        return sign_document(head, lambda digest: _raw_signature(key, digest))

    return sign


def _raw_signature(key: ec.EllipticCurvePrivateKey, digest: bytes) -> bytes:
    signature = key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    r, s = utils.decode_dss_signature(signature)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
