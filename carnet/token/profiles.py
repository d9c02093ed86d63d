"""What is known of kinds of tokens and cannot be asked of them.

All else is asked: mechanisms, flags, memory; and what a token says and may not keep is
tried (carnet.token.fitness).
"""

import msgspec

from carnet.token.module import TokenInfo


class Profile(msgspec.Struct, frozen=True):
    """One kind of token."""

    name: str
    begins: tuple[tuple[str, str], ...]
    """What CK_TOKEN_INFO's manufacturerID and model begin with, for each of its modules."""
    places: int | None = None
    """How many private keys it has room for, whatever their type; None: ask it."""
    keeps_data: bool = True
    """It may keep data objects, such as the officer's key; which it does can be tried."""
    locks: bool = True
    """It may lock after wrong PINs."""


_PIV = Profile("PIV", (("piv_II", ""), ("Yubico", "YubiKey")), places=24, keeps_data=False)
"""Slots 9A, 9C, 9D and 9E, and 20 of retired keys (NIST SP 800-73-4 part 1 section 3.3);
by OpenSC's module and by Yubico's ykcs11."""

_SOFTHSM = Profile("SoftHSM2", (("SoftHSM project", ""),), locks=False)

PROFILES = (_PIV, _SOFTHSM)


def profile_of(info: TokenInfo) -> Profile | None:
    """Return the profile of a token's kind; None if there is none, and it has to be asked."""
    return next((each for each in PROFILES if _fits(each, info)), None)


def may_lock(info: TokenInfo) -> bool:
    """Tell whether wrong PINs may lock a token of this kind."""
    profile = profile_of(info)
    return profile is None or profile.locks


def _fits(profile: Profile, info: TokenInfo) -> bool:
    return any(
        info.manufacturer.startswith(manufacturer) and info.model.startswith(model)
        for manufacturer, model in profile.begins
    )
