"""Where the embedded SoftHSM2 token lives, and its softhsm2.conf."""

import os
from pathlib import Path

import platformdirs

from carnet.errors import TokenError
from carnet.files import private_directory, write_private
from softhsm.kept import keep_tokens
from softhsm.places import CONFIGURATION_VARIABLE as CONFIGURATION_VARIABLE  # noqa: PLC0414  its name here

DIRECTORY_VARIABLE = "CARNET_SOFTHSM_DIR"

_FILE = "softhsm2.conf"
_TOKENS = "tokens"
_UNSUITABLE = frozenset("#\n")


def default_directory() -> Path:
    """Return CARNET_SOFTHSM_DIR, else softhsm/ in the user's data directory."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    return Path(named) if named else platformdirs.user_data_path("carnet") / "softhsm"


def prepare(directory: Path) -> Path:
    """Make the directory a home for SoftHSM2 tokens; return its softhsm2.conf.

    Tokens that are there stay. Directories become 0700, the file 0600. Raises
    TokenError if the path has a character that SoftHSM2's configuration cannot hold.
    """
    directory = directory.resolve()
    if _UNSUITABLE & set(str(directory)):
        raise TokenError(f"SoftHSM2 cannot keep tokens in {str(directory)!r}; choose another path.")
    for private in (directory, directory / _TOKENS):
        private_directory(private).chmod(0o700)
    write_private(directory / _FILE, _configuration(directory / _TOKENS).encode())
    return directory / _FILE


def use_default() -> None:
    """Point SoftHSM2 at the default directory, if it exists and the user chose no other.

    SoftHSM2 reads SOFTHSM2_CONF when it starts: call this before the module is loaded.
    What a kill has taken from a token is put back (softhsm.kept). Raises TokenError.
    """
    configuration = default_directory().absolute() / _FILE
    if configuration.is_file():
        os.environ.setdefault(CONFIGURATION_VARIABLE, str(configuration))
    keep_tokens()


def _configuration(tokens: Path) -> str:
    return (
        f"directories.tokendir = {tokens}\n"
        "objectstore.backend = file\n"
        "log.level = ERROR\n"
        "slots.removable = false\n"
    )
