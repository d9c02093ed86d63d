"""One-time pairs in custody `split`: made on this token, good for signing, gone with it.

The private key can do nothing but sign and was never extractable, so that no other
token has it, and none ever will. What a Client must open again it seals to a key of the
token that agrees and does nothing else, where the token has such keys.
"""

from contextlib import ExitStack
from datetime import date
from functools import partial
from typing import Any, Protocol

from pkcs11 import Attribute, MechanismFlag

from carnet import crash
from carnet.errors import TokenCannotError, TokenError
from carnet.token import keys, longterm
from carnet.token.onetime import is_pair_label
from carnet.token.pair_type import PairType
from carnet.token.session import TokenSession
from carnet.token.translation import translated

_PENDING_LABEL = "carnet pending"


class SigningPairs:
    """Makes one-time pairs that sign, in the way that this token has of making them.

    A copy of a session's pair is on the token only when it is whole. But a TPM has no such
    pairs and makes no copies, and softoken does not say of a copy that it was never
    extractable: what they make is there at once, and gets its name then. Of RSA pairs
    tpm2-pkcs11 makes none that only sign; nobody encrypts to them all the same.
    """

    def __init__(self, session: TokenSession, type_: PairType) -> None:
        self._session = session
        self._type = type_
        self._ways: list[_Way] = [
            _keep_a_copy,
            partial(_name_what_stays, use=MechanismFlag.SIGN),
            partial(_name_what_stays, use=type_.use),
        ]

    def mint(self, label: str, not_after: date | None) -> bytes:
        """Make a one-time pair that signs; return its public key, a DER SubjectPublicKeyInfo.

        It counts only once it has signed; one that fails, or is interrupted, is destroyed.
        Needs a writable session. Raises ValueError unless the label is one of
        pair_label(), TokenError if the token fails, TokenCannotError if it lacks something
        for this type.
        """
        if not is_pair_label(label):
            raise ValueError(f"{label!r} is not the label of a one-time key pair.")
        while True:
            try:
                with self._session.token.module.undisturbed(), translated():
                    made = self._ways[0](self._session, self._type, label, not_after)
            except TokenCannotError:
                if len(self._ways) == 1:
                    raise
                del self._ways[0]
            else:
                del self._ways[1:]
                return made


class _Way(Protocol):
    """Makes a pair; raises TokenCannotError where the token has no such way."""

    def __call__(
        self, session: TokenSession, type_: PairType, label: str, not_after: date | None, /
    ) -> bytes: ...


def _keep_a_copy(
    session: TokenSession, type_: PairType, label: str, not_after: date | None
) -> bytes:
    """Make a pair of the session, and store a copy."""
    with ExitStack() as temporary, ExitStack() as undo:
        public, private = keys.generate_session_pair(
            session, type_, use=MechanismFlag.SIGN, extractable=False
        )
        temporary.callback(public.destroy)
        temporary.callback(private.destroy)
        public_key = _read(public, type_)
        kept = private.copy(
            {
                Attribute.TOKEN: True,
                Attribute.ID: keys.key_id(public_key),
                Attribute.LABEL: label,
            }
        )
        undo.callback(kept.destroy)
        crash.reach("token.private-stored")
        keys.prove_signing(kept, public_key)
        keys.keep_public_half(public, public_key, label, not_after)
        crash.reach("token.pair-stored")
        undo.pop_all()
    return public_key


def _name_what_stays(
    session: TokenSession,
    type_: PairType,
    label: str,
    not_after: date | None,
    *,
    use: MechanismFlag,
) -> bytes:
    """Make a pair on the token, under the label by which a cut-off one is found; then name it."""
    stays = {Attribute.TOKEN: True, Attribute.LABEL: label}
    public, private = type_.generate(
        session, use, keys.public_template(use) | stays, keys.private_template(type_, use) | stays
    )
    with ExitStack() as undo:
        undo.callback(keys.destroy, public)
        undo.callback(keys.destroy, private)
        crash.reach("token.private-stored")
        public_key = _read(public, type_)
        for half in (private, public):
            half[Attribute.ID] = keys.key_id(public_key)
        keys.prove_signing(private, public_key)
        if not_after is not None:
            public[Attribute.END_DATE] = not_after
        crash.reach("token.pair-stored")
        undo.pop_all()
    return public_key


def make_pending_key(session: TokenSession) -> bytes | None:
    """Return the public half of the key that a Client keeps its pending request under.

    It is made when missing, which needs a writable session; None where the token has no
    keys that agree. Raises TokenError.
    """
    try:
        return longterm.find_or_make(session, _PENDING_LABEL, MechanismFlag.DERIVE)
    except TokenCannotError:
        return None


def find_pending_key(session: TokenSession) -> "PendingKey | None":
    """Return the key that a Client keeps its pending request under; None if there is none.

    Raises TokenError.
    """
    with translated():
        private = longterm.find_private(session, _PENDING_LABEL)
        if private is None:
            return None
        return PendingKey(private, longterm.public_half(session, _PENDING_LABEL, private))


class PendingKey:
    """A key of the token's own, on P-256, that agrees."""

    def __init__(self, private: Any, public_key: bytes) -> None:
        self._private = private
        self.public_key = public_key
        """DER SubjectPublicKeyInfo."""

    def agree(self, point: bytes) -> bytes:
        """Return the x-coordinate of ECDH with a point; raises TokenError, ValueError."""
        with translated():
            return keys.P256.agree(self._private, point)


def _read(public: Any, type_: PairType) -> bytes:
    read = keys.read_public_key(public)
    if read is None or read[0] is not type_:
        raise TokenError(
            f"The token made another key than one of type {type_.name}; use another token."
        )
    return read[1]
