"""Where SoftHSM2 keeps its tokens, by the configuration that is in use."""

import os
from collections.abc import Iterator
from pathlib import Path

from softhsm.configuration import CONFIGURATION_VARIABLE

_DIRECTORIES = "directories.tokendir"


def directories_of(serial: str) -> list[Path]:
    """Return the directory of the token of that serial number; none if it is not SoftHSM2's."""
    # SoftHSM2 names a token's directory by a UUID; the serial number is its end.
    return [token for token in _tokens() if token.name.replace("-", "").endswith(serial)]


def _tokens() -> Iterator[Path]:
    configuration = Path(os.environ.get(CONFIGURATION_VARIABLE, ""))
    if not configuration.is_file():
        return
    for line in configuration.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == _DIRECTORIES:
            yield from Path(value.strip()).glob("*")
