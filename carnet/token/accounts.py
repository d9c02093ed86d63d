"""The key on the Host's HSM that signs the head of its accounts."""

from pkcs11 import Mechanism, MechanismFlag

from carnet.errors import TokenError
from carnet.token import longterm
from carnet.token.session import TokenSession
from carnet.token.translation import translated

_LABEL = "carnet accounts"


def accounts_key(session: TokenSession) -> bytes:
    """Return its public half, a DER SubjectPublicKeyInfo; the pair is made when missing.

    Needs a writable session when it is made. Raises TokenError.
    """
    return longterm.find_or_make(session, _LABEL, MechanismFlag.SIGN)


def sign_accounts(session: TokenSession, digest: bytes) -> bytes:
    """Return the ECDSA signature (r and s side by side) of a digest; raises TokenError."""
    with translated():
        private = longterm.find_private(session, _LABEL)
        if private is None:
            raise TokenError("The token holds no key to sign the accounts with; start the service.")
        return bytes(private.sign(digest, mechanism=Mechanism.ECDSA))
