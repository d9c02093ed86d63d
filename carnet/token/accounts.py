"""The Host's accounts on its HSM: the key that signs their head, and the newest head itself.

The head is a private data object, so that it takes the PIN to replace. By it a Host
finds out that its database was put back to an older state, in which spent pairs are
valid again.
"""

from collections.abc import Callable

from pkcs11 import Mechanism, MechanismFlag

from carnet.errors import TokenError
from carnet.token import longterm
from carnet.token.data import read_all_data, write_data
from carnet.token.session import TokenSession
from carnet.token.translation import translated

_LABEL = "carnet accounts"
_MARK = "carnet accounts head"


def accounts_key(session: TokenSession) -> bytes:
    """Return its public half, a DER SubjectPublicKeyInfo; the pair is made when missing.

    Needs a writable session when it is made. Raises TokenError.
    """
    return longterm.find_or_make(session, _LABEL, MechanismFlag.SIGN)


def has_accounts_key(session: TokenSession) -> bool:
    """Tell whether the token holds it; raises TokenError."""
    with translated():
        return longterm.find_private(session, _LABEL) is not None


def sign_accounts(session: TokenSession, digest: bytes) -> bytes:
    """Return the ECDSA signature (r and s side by side) of a digest; raises TokenError."""
    with translated():
        private = longterm.find_private(session, _LABEL)
        if private is None:
            raise TokenError("The token holds no key to sign the accounts with; start the service.")
        return bytes(private.sign(digest, mechanism=Mechanism.ECDSA))


def read_marks(session: TokenSession) -> list[bytes]:
    """Return the signed heads that are kept here: one, none, or two where a writing was cut off.

    Raises TokenError.
    """
    return read_all_data(session, _MARK, private=True)


def write_mark(
    session: TokenSession,
    signed: bytes,
    *,
    stands: Callable[[bytes], bool] = lambda _: False,
    sync: Callable[[TokenSession], None],
) -> None:
    """Keep a signed head here in the place of those before, unless one of them `stands`.

    `sync` is that of write_data(). Raises TokenError.
    """
    write_data(session, _MARK, signed, private=True, stands=stands, sync=sync)
