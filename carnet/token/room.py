"""How many key pairs still fit on a token, as far as anybody knows before they are made."""

from dataclasses import dataclass

from pkcs11 import Attribute, ObjectClass

from carnet.token.ec_type import EcType
from carnet.token.pair_type import PairType
from carnet.token.profiles import profile_of
from carnet.token.rsa_type import RsaType
from carnet.token.session import TokenSession
from carnet.token.translation import translated

_AROUND_A_KEY = 256
"""Bytes for label, identifier and the rest, reckoned generously."""


@dataclass(frozen=True)
class Room:
    """Room for so many pairs."""

    pairs: int | None
    """None: neither the token nor its profile tells."""
    counted: bool = False
    """Its places were counted; otherwise it is reckoned from free memory, and may be off."""


def room_on(session: TokenSession, type_: PairType) -> Room:
    """Return for how many pairs of this type there is room; raises TokenError."""
    info = session.token.info
    profile = profile_of(info)
    if profile is not None and profile.places is not None:
        taken = len(session.find(ObjectClass.PRIVATE_KEY, {Attribute.TOKEN: True}))
        return Room(max(0, profile.places - taken), counted=True)
    with translated():
        free = session.token.module.library.free_memory(session.token.slot_id)
    return Room(None if free is None else free // _bytes_of(type_))


def _bytes_of(type_: PairType) -> int:
    """Reckon the memory that a private key takes."""
    if isinstance(type_, RsaType):
        # Modulus and private exponent, and five numbers of half their size (RFC 8017 3.2).
        return _AROUND_A_KEY + type_.bits // 8 * 9 // 2
    size = type_.coordinate_size if isinstance(type_, EcType) else 0
    return _AROUND_A_KEY + size + 2 * size
