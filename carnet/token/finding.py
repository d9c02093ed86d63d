"""Where a PKCS#11 module is."""

import os
import sysconfig
from pathlib import Path

from carnet.errors import TokenError

MODULE_VARIABLE = "CARNET_PKCS11_MODULE"

_KNOWN_MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
_LIBRARIES = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/opt/homebrew/lib",
    "/Library/OpenSC/lib",
)
"""Where systems install modules, in them or in their pkcs11/; Debian has one more (Multiarch)."""


def find_module(path: str | None) -> Path:
    """Return the PKCS#11 module to load.

    That is the given path, else the one in the environment's CARNET_PKCS11_MODULE,
    else SoftHSM2 where distributions install it. A file's name alone is looked for where
    systems install modules, and nowhere else: not in whatever directory one happens to be.
    Raises TokenError if there is none.
    """
    named = path or os.environ.get(MODULE_VARIABLE)
    for candidate in _candidates(named) if named else _KNOWN_MODULES:
        if Path(candidate).is_file():
            return Path(candidate).resolve()
    if named:
        advice = "correct the path" if _has_place(named) else "install it, or give its whole path"
        raise TokenError(f"There is no PKCS#11 module at {named}; {advice}.")
    raise TokenError(
        f"No PKCS#11 module was found; install SoftHSM2 (package softhsm2), "
        f"or name your token's module in {MODULE_VARIABLE}."
    )


def _candidates(named: str) -> list[Path]:
    if _has_place(named):
        return [Path(named)]
    multiarch = sysconfig.get_config_var("MULTIARCH")
    libraries = [Path("/usr/lib", multiarch)] if multiarch else []
    libraries += map(Path, _LIBRARIES)
    return [place / named for library in libraries for place in (library, library / "pkcs11")]


def _has_place(named: str) -> bool:
    return Path(named).name != named


def name_to_give(path: Path) -> str | None:
    """Return how another machine's find_module() is told of this module; None if it needs none."""
    if path in {Path(known).resolve() for known in _KNOWN_MODULES}:
        return None
    found = any(each.is_file() and each.resolve() == path for each in _candidates(path.name))
    return path.name if found else str(path)
