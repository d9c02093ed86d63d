"""Where SoftHSM2 keeps its tokens, by the configuration that is in use."""

import os
from collections.abc import Iterator
from pathlib import Path

CONFIGURATION_VARIABLE = "SOFTHSM2_CONF"
_DIRECTORIES = "directories.tokendir"


def directories_of(serial: str) -> list[Path]:
    """Return the directory of the token of that serial number; none if it is not SoftHSM2's."""
    # SoftHSM2 names a token's directory by a UUID; the serial number is its end.
    return [token for token in token_directories() if token.name.replace("-", "").endswith(serial)]


def cannot_have(serial: str) -> bool:
    """Tell whether a token is away for certain: its directory, or all of SoftHSM2's, is not there.

    Where no configuration is named nobody knows; SoftHSM2 then takes the system's.
    """
    if CONFIGURATION_VARIABLE not in os.environ:
        return False
    try:
        return not directories_of(serial)
    except OSError:
        return False


def configuration_file() -> Path:
    """Return the configuration that SOFTHSM2_CONF names; there need not be one."""
    return Path(os.environ.get(CONFIGURATION_VARIABLE, ""))


def token_directories() -> Iterator[Path]:
    """Yield the directory of each token."""
    configuration = configuration_file()
    if not configuration.is_file():
        return
    for line in configuration.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == _DIRECTORIES:
            yield from Path(value.strip()).glob("*")
