"""What is known of kinds of tokens and cannot be asked of them.

All else is asked: mechanisms, flags, memory; and what a token says and may not keep is
tried (carnet.token.fitness).
"""

from dataclasses import dataclass

from carnet.token.module import TokenInfo


@dataclass(frozen=True)
class Profile:
    """One kind of token."""

    name: str
    begins: tuple[tuple[str, str], ...]
    """What CK_TOKEN_INFO's manufacturerID and model begin with, for each of its modules."""
    places: int
    """How many private keys it has room for, whatever their type."""


_PIV = Profile("PIV", (("piv_II", ""), ("Yubico", "YubiKey")), places=24)
"""Slots 9A, 9C, 9D and 9E, and 20 of retired keys (NIST SP 800-73-4 part 1 section 3.3);
by OpenSC's module and by Yubico's ykcs11."""

PROFILES = (_PIV,)


def profile_of(info: TokenInfo) -> Profile | None:
    """Return the profile of a token's kind; None if there is none, and it has to be asked."""
    return next((each for each in PROFILES if _fits(each, info)), None)


def _fits(profile: Profile, info: TokenInfo) -> bool:
    return any(
        info.manufacturer.startswith(manufacturer) and info.model.startswith(model)
        for manufacturer, model in profile.begins
    )
